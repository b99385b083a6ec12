//! FTP's control connection: the lines that say where a data connection will go.
//!
//! | line | sent by | form | source |
//! |---|---|---|---|
//! | `PORT h1,h2,h3,h4,p1,p2` | client | [`Form::Numbers`], IPv4 only | RFC 959, 4.1.2 |
//! | `227 text (h1,h2,h3,h4,p1,p2)` | server | the same; parentheses may be missing | RFC 1123, 4.1.2.6 |
//! | `EPRT \|family\|address\|port\|` | client | [`Form::Bars`] | RFC 2428, 2 |
//! | `229 text (\|\|\|port\|)` | server | the same, without an address | RFC 2428, 3 |
//!
//! [`read`] is pure and total. It looks at the first line of a segment's payload, and only if all of it is there:
//! a line that is cut off, or that starts in the middle of a segment, is left alone. What follows the port is not looked
//! at. Who may say which address is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Longest line that is read, in bytes, without its line feed.
const LONGEST: usize = 256;

/// What the payload of a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing of interest, or not a whole line.
    Other,
    /// One of the lines above, with something in it that cannot be.
    Malformed,
    /// The sender waits for a data connection.
    Announced(Announced),
}

/// How address and port are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Six numbers with commas.
    Numbers,
    /// As IP addresses and ports usually are, between bars.
    Bars,
}

/// Where a data connection will go, and where in the payload it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) form: Form,
    /// None in a reply to EPSV, which is about the address that the client knows already.
    pub(super) address: Option<(IpAddr, Range<usize>)>,
    /// Not 0.
    pub(super) port: u16,
    pub(super) port_at: Range<usize>,
}

/// Other text for a part of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    pub(super) at: Range<usize>,
    pub(super) text: Vec<u8>,
}

impl Announced {
    /// What to write so that the line says `address` and `port`; of what stays, the text stays. `None` if it says so
    /// already.
    pub(super) fn saying(&self, address: IpAddr, port: u16, payload: &[u8]) -> Option<Replacement> {
        let address = self.address.as_ref().filter(|(old, _)| *old != address).map(|(_, at)| {
            let text = match self.form {
                Form::Numbers => address.to_string().replace('.', ","),
                Form::Bars => address.to_string(),
            };
            (text, at.clone())
        });
        let port = (self.port != port).then(|| {
            let [high, low] = port.to_be_bytes();
            match self.form {
                Form::Numbers => format!("{high},{low}"),
                Form::Bars => port.to_string(),
            }
        });
        let port_at = self.port_at.clone();
        Some(match (address, port) {
            (None, None) => return None,
            (Some((text, at)), None) => Replacement { at, text: text.into() },
            (None, Some(text)) => Replacement { at: port_at, text: text.into() },
            (Some((address, at)), Some(port)) => {
                let between = payload.get(at.end..port_at.start)?;
                Replacement { at: at.start..port_at.end, text: [address.as_bytes(), between, port.as_bytes()].concat() }
            }
        })
    }
}

/// Reads what a segment of an FTP control connection, over IPv6 if `v6`, begins with.
pub(super) fn read(payload: &[u8], v6: bool) -> Line {
    let Some(line) = first_line(payload) else { return Line::Other };
    let Some((word, _)) = line.split_first_chunk::<4>() else { return Line::Other };
    let mut text = Text { line, at: word.len() };
    let announced = match word.to_ascii_uppercase().as_slice() {
        b"PORT" if !v6 => port(&mut text),
        b"227 " if !v6 => passive(&mut text),
        b"EPRT" => extended_port(&mut text, v6),
        b"229 " => extended_passive(&mut text),
        _ => return Line::Other,
    };
    match announced {
        Some(announced) if announced.port != 0 => Line::Announced(announced),
        _ => Line::Malformed,
    }
}

/// The first line, without what ends it, if it is whole and not too long.
fn first_line(payload: &[u8]) -> Option<&[u8]> {
    let head = &payload[..payload.len().min(LONGEST + 1)];
    let line = &head[..head.iter().position(|byte| *byte == b'\n')?];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

fn port(text: &mut Text<'_>) -> Option<Announced> {
    text.spaces()?;
    text.numbers()
}

fn passive(text: &mut Text<'_>) -> Option<Announced> {
    text.skip_to(|byte| byte.is_ascii_digit())?;
    text.numbers()
}

fn extended_port(text: &mut Text<'_>, v6: bool) -> Option<Announced> {
    text.spaces()?;
    let bar = text.bar()?;
    let (family, _) = text.number(1)?;
    text.expect(bar)?;
    let start = text.at;
    text.skip_to(|byte| byte == bar)?;
    let at = start..text.at;
    let written = str::from_utf8(text.line.get(at.clone())?).ok()?;
    let address = match (family, v6) {
        (1, false) => written.parse::<Ipv4Addr>().ok()?.into(),
        (2, true) => written.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    text.expect(bar)?;
    let (port, port_at) = text.number(5)?;
    Some(Announced { form: Form::Bars, address: Some((address, at)), port: port.try_into().ok()?, port_at })
}

fn extended_passive(text: &mut Text<'_>) -> Option<Announced> {
    text.skip_to(|byte| byte == b'(')?;
    text.expect(b'(')?;
    let bar = text.bar()?;
    text.expect(bar)?;
    text.expect(bar)?;
    let (port, port_at) = text.number(5)?;
    Some(Announced { form: Form::Bars, address: None, port: port.try_into().ok()?, port_at })
}

/// A line, and how far it was read.
struct Text<'a> {
    line: &'a [u8],
    at: usize,
}

impl Text<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// At least one space.
    fn spaces(&mut self) -> Option<()> {
        self.expect(b' ')?;
        self.skip_to(|byte| byte != b' ')
    }

    /// Goes on to the first byte that is `wanted`.
    fn skip_to(&mut self, wanted: impl Fn(u8) -> bool) -> Option<()> {
        self.at += self.line.get(self.at..)?.iter().position(|byte| wanted(*byte))?;
        Some(())
    }

    /// What stands for a bar: any printable character that cannot be part of what is between them.
    fn bar(&mut self) -> Option<u8> {
        self.next().filter(|byte| byte.is_ascii_punctuation() && !matches!(byte, b'.' | b':'))
    }

    /// A decimal number of at most `digits` digits.
    fn number(&mut self, digits: usize) -> Option<(u32, Range<usize>)> {
        let start = self.at;
        let mut number = 0u32;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if self.at - start == digits {
                return None;
            }
            number = number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > start).then_some((number, start..self.at))
    }

    /// Four numbers of an address and two of a port.
    fn numbers(&mut self) -> Option<Announced> {
        let mut bytes = [0u8; 6];
        let mut starts = [0; 6];
        let mut ends = [0; 6];
        for index in 0..6 {
            if index > 0 {
                self.expect(b',')?;
            }
            let (number, at) = self.number(3)?;
            // Some would take it for octal.
            if index < 4 && at.len() > 1 && self.line.get(at.start) == Some(&b'0') {
                return None;
            }
            bytes[index] = number.try_into().ok()?;
            (starts[index], ends[index]) = (at.start, at.end);
        }
        let [a, b, c, d, high, low] = bytes;
        Some(Announced {
            form: Form::Numbers,
            address: Some((Ipv4Addr::new(a, b, c, d).into(), starts[0]..ends[3])),
            port: u16::from_be_bytes([high, low]),
            port_at: starts[4]..ends[5],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn announced(line: &str, v6: bool) -> Announced {
        match read(line.as_bytes(), v6) {
            Line::Announced(announced) => announced,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn v4(address: &str, at: Range<usize>) -> Option<(IpAddr, Range<usize>)> {
        Some((address.parse().unwrap(), at))
    }

    #[test]
    fn each_line_says_its_address_and_port_in_whatever_case() {
        for word in ["PORT", "port", "Port"] {
            let read = announced(&format!("{word} 10,0,0,1,4,210\r\n"), false);
            assert_eq!((read.form, read.port, read.port_at), (Form::Numbers, 1234, 14..19));
            assert_eq!(read.address, v4("10.0.0.1", 5..13));
        }
        for text in ["Entering Passive Mode (10,0,0,1,4,210).", "=10,0,0,1,4,210", "10,0,0,1,4,210"] {
            let read = announced(&format!("227 {text}\r\n"), false);
            assert_eq!((read.address.unwrap().0, read.port), ("10.0.0.1".parse().unwrap(), 1234), "{text}");
        }
        let read = announced("eprt |1|10.0.0.1|1234|\r\n", false);
        assert_eq!(
            (read.form, read.address, read.port, read.port_at),
            (Form::Bars, v4("10.0.0.1", 8..16), 1234, 17..21)
        );
        let read = announced("EPRT !2!2001:db8::1!65535\n", true);
        assert_eq!((read.address.unwrap().0, read.port), ("2001:db8::1".parse().unwrap(), 65535));
        for v6 in [false, true] {
            let read = announced("229 Entering Extended Passive Mode (|||1234|)\r\n", v6);
            assert_eq!((read.address, read.port, read.port_at), (None, 1234, 39..43));
        }
    }

    #[test]
    fn lines_that_are_not_of_interest_or_not_whole_are_left_alone() {
        for line in [
            "",
            "\n",
            "USER anonymous\r\n",
            "PORT 10,0,0,1,4,210",
            "PORT 10,0,0,1,4,210\r",
            "227-Entering Passive Mode (10,0,0,1,4,210)\r\n",
            "226 done\r\n227 Entering Passive Mode (10,0,0,1,4,210)\r\n",
            " PORT 10,0,0,1,4,210\r\n",
        ] {
            assert_eq!(read(line.as_bytes(), false), Line::Other, "{line:?}");
        }
        assert_eq!(read(b"PORT 10,0,0,1,4,210\r\n", true), Line::Other, "not known in IPv6");
        let long = format!("227 {}10,0,0,1,4,210\r\n", "x".repeat(LONGEST));
        assert_eq!(read(long.as_bytes(), false), Line::Other, "too long to be read");
    }

    #[test]
    fn what_cannot_be_is_malformed() {
        for line in [
            "PORT\r\n",
            "PORT 10,0,0,1,4\r\n",
            "PORT 10,0,0,256,4,210\r\n",
            "PORT 10,0,0,1,4,1210\r\n",
            "PORT 10,0,0,1,0,0\r\n",
            "PORT 010,0,0,1,4,210\r\n",
            "PORT 10.0.0.1,4,210\r\n",
            "PORT10,0,0,1,4,210\r\n",
            "EPRT |1|10.0.0.1|65536|\r\n",
            "EPRT |1|10.0.0.1|0|\r\n",
            "EPRT |2|2001:db8::1|1234|\r\n",
            "EPRT |3|10.0.0.1|1234|\r\n",
            "EPRT 1110.0.0.1112341\r\n",
            "227 Entering Passive Mode\r\n",
            "229 Entering Extended Passive Mode\r\n",
            "229 Entering Extended Passive Mode (||1234|)\r\n",
            "229 Entering Extended Passive Mode (|||123456|)\r\n",
        ] {
            assert_eq!(read(line.as_bytes(), false), Line::Malformed, "{line:?}");
        }
        assert_eq!(read(b"EPRT |1|10.0.0.1|1234|\r\n", true), Line::Malformed);
    }

    #[test]
    fn of_what_stays_the_text_stays() {
        let line = "PORT 10,0,0,1,004,210 and more\r\n";
        let old = announced(line, false);
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(old.saying(address, 1234, line.as_bytes()), None);
        let replacement = old.saying("192.168.1.20".parse().unwrap(), 1234, line.as_bytes()).unwrap();
        assert_eq!(replacement, Replacement { at: 5..13, text: b"192,168,1,20".into() });
        let replacement = old.saying(address, 80, line.as_bytes()).unwrap();
        assert_eq!(replacement, Replacement { at: 14..21, text: b"0,80".into() });
    }

    /// A line of each kind, and whether it is over IPv6.
    fn line() -> impl Strategy<Value = (String, bool)> {
        let numbers = |[a, b, c, d]: [u8; 4], port: u16| format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff);
        prop_oneof![
            (any::<[u8; 4]>(), 1u16..).prop_map(move |(a, p)| (format!("PORT {}\r\n", numbers(a, p)), false)),
            (any::<[u8; 4]>(), 1u16..)
                .prop_map(move |(a, p)| (format!("227 Entering Passive Mode ({}).\r\n", numbers(a, p)), false)),
            (any::<Ipv4Addr>(), 1u16..).prop_map(|(a, p)| (format!("EPRT |1|{a}|{p}|\r\n"), false)),
            (any::<Ipv6Addr>(), 1u16..).prop_map(|(a, p)| (format!("EPRT |2|{a}|{p}|\r\n"), true)),
            (any::<bool>(), 1u16..)
                .prop_map(|(v6, p)| (format!("229 Entering Extended Passive Mode (|||{p}|)\r\n"), v6)),
        ]
    }

    proptest! {
        #[test]
        fn a_line_rewritten_says_what_it_was_made_to_say(
            (line, v6) in line(), a: Ipv4Addr, b: Ipv6Addr, port in 1u16.., tail: [u8; 8]
        ) {
            let address = if v6 { IpAddr::from(b) } else { IpAddr::from(a) };
            let payload = [line.as_bytes(), &tail].concat();
            let Line::Announced(old) = read(&payload, v6) else { panic!("{line:?}") };
            let mut new = payload.clone();
            if let Some(Replacement { at, text }) = old.saying(address, port, &payload) {
                new.splice(at, text);
            }
            let Line::Announced(again) = read(&new, v6) else { panic!("{line:?}") };
            prop_assert_eq!(again.port, port);
            prop_assert_eq!(again.address.clone().map(|(a, _)| a), old.address.map(|_| address));
            prop_assert_eq!(again.saying(address, port, &new), None);
            prop_assert_eq!(&new[new.len() - 8..], &tail);
        }

        #[test]
        fn no_part_of_a_line_is_taken_for_the_whole((line, v6) in line(), cut in 1usize..40) {
            let part = &line.as_bytes()[..line.len().saturating_sub(cut)];
            prop_assert_eq!(read(part, v6), Line::Other);
        }

        #[test]
        fn whatever_is_read_lies_within_the_payload(
            (line, v6) in line(), changes in proptest::collection::vec((0usize..64, any::<u8>()), 0..6)
        ) {
            let mut payload = line.into_bytes();
            for (at, byte) in changes {
                let at = at % payload.len();
                payload[at] = byte;
            }
            if let Line::Announced(read) = read(&payload, v6) {
                prop_assert!(read.port_at.end <= payload.len() && !read.port_at.is_empty());
                if let Some((_, at)) = read.address {
                    prop_assert!(at.start < at.end && at.end < read.port_at.start);
                }
            }
        }

        #[test]
        fn random_bytes_are_read_without_harm(payload in proptest::collection::vec(any::<u8>(), 0..400), v6: bool) {
            let _ = read(&payload, v6);
        }
    }
}
