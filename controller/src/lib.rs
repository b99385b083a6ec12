//! The Kubernetes controller. Nothing is here yet: `README.md` in this folder says what is coming.
