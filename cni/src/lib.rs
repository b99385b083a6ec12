//! The CNI plugin. Nothing is here yet: `README.md` in this folder says what is coming.
