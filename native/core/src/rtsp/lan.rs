//! Addresses of the LAN in what a camera says, and how they are taken out of it.

use core::net::IpAddr;
use core::ops::Range;

/// Pieces of an address shorter than this tell nothing.
const TELLING: usize = 3;

/// The addresses that a viewer must not see, as text.
#[derive(Clone, Debug, Default)]
pub struct Lan {
    needles: Vec<Vec<u8>>,
}

impl Lan {
    pub fn new(addresses: &[IpAddr]) -> Self {
        let mut needles = Vec::new();
        for address in addresses {
            if address.is_unspecified() {
                continue;
            }
            needles.push(address.to_string().into_bytes());
            if let IpAddr::V6(v6) = address {
                let words = v6.segments();
                needles.push(words.map(|w| format!("{w:x}")).join(":").into_bytes());
                needles.push(words.map(|w| format!("{w:04x}")).join(":").into_bytes());
            }
        }
        Self { needles }
    }

    /// Where they occur, overlapping ones included.
    fn occurrences(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut first = [false; 256];
        for byte in self.needles.iter().filter_map(|needle| needle.first()) {
            first[usize::from(byte.to_ascii_lowercase())] = true;
            first[usize::from(byte.to_ascii_uppercase())] = true;
        }
        let mut found = Vec::new();
        // Few bytes begin one, so pictures are passed over quickly.
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| first[usize::from(**byte)]) {
            let here = |needle: &&Vec<u8>| {
                let place = bytes.get(at..at + needle.len());
                place.is_some_and(|place| place.eq_ignore_ascii_case(needle))
            };
            found.extend(self.needles.iter().filter(here).map(|needle| at..at + needle.len()));
        }
        found
    }

    /// The same bytes with zeros for their digits, if there are any.
    pub fn blanked(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let found = self.occurrences(bytes);
        if found.is_empty() {
            return None;
        }
        let mut new = bytes.to_vec();
        for range in found {
            zero(new.get_mut(range).unwrap_or(&mut []));
        }
        Some(new)
    }

    /// Turns their digits into zeros; whether there were any. What is left is a valid address, and as long.
    pub fn blank(&self, bytes: &mut [u8]) -> bool {
        let found = self.occurrences(bytes);
        for range in &found {
            zero(bytes.get_mut(range.clone()).unwrap_or(&mut []));
        }
        !found.is_empty()
    }

    /// How many bytes at the end may be the beginning of one.
    pub fn beginning(&self, bytes: &[u8]) -> usize {
        let longest = |needle: &Vec<u8>| {
            (1..needle.len().min(bytes.len() + 1))
                .rev()
                .find(|&len| {
                    let end = bytes.get(bytes.len() - len..).unwrap_or(&[]);
                    needle.get(..len).is_some_and(|n| end.eq_ignore_ascii_case(n))
                })
                .unwrap_or(0)
        };
        self.needles.iter().map(longest).max().unwrap_or(0)
    }

    /// Turns into zeros what may be the rest of one, where bytes were met in their middle; whether there was any.
    pub fn blank_rest(&self, bytes: &mut [u8]) -> bool {
        let longest = |needle: &Vec<u8>| {
            (TELLING..needle.len())
                .rev()
                .find(|&len| {
                    let rest = needle.get(needle.len() - len..);
                    rest.is_some_and(|rest| bytes.get(..len).is_some_and(|b| b.eq_ignore_ascii_case(rest)))
                })
                .unwrap_or(0)
        };
        let len = self.needles.iter().map(longest).max().unwrap_or(0);
        zero(bytes.get_mut(..len).unwrap_or(&mut []));
        len > 0
    }
}

/// Turns digits into zeros.
pub fn zero(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| byte.is_ascii_hexdigit()) {
        *byte = b'0';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_become_zeros_wherever_they_stand() {
        let lan = Lan::new(&[
            "192.168.1.2".parse().unwrap(),
            "192.168.1.20".parse().unwrap(),
            "FD00::A".parse().unwrap(),
        ]);
        let mut text = b"x192.168.1.20y fd00::a FD00:0:0:0:0:0:0:A".to_vec();
        assert!(lan.blank(&mut text));
        assert_eq!(text, b"x000.000.0.00y 0000::0 0000:0:0:0:0:0:0:0");
        assert!(!lan.blank(&mut text));
        assert_eq!(lan.beginning(b"at 192.168.1."), 10);
        assert_eq!((lan.beginning(b"nothing"), lan.beginning(b"")), (0, 0));
    }

    #[test]
    fn the_rest_of_one_becomes_zeros_where_it_tells_something() {
        let lan = Lan::new(&["192.168.1.20".parse().unwrap()]);
        let mut text = b"168.1.20 and 192.168.1.20".to_vec();
        assert!(lan.blank_rest(&mut text));
        assert_eq!(text, b"000.0.00 and 192.168.1.20");
        let mut text = b"20 frames".to_vec();
        assert!(!lan.blank_rest(&mut text));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_through(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let lan = Lan::new(&["1.1.1.1".parse().unwrap()]);
            prop_assert!(lan.beginning(&bytes) < 7);
            let mut blank = bytes.clone();
            lan.blank(&mut blank);
            lan.blank_rest(&mut blank);
            prop_assert!(!blank.windows(7).any(|w| w == b"1.1.1.1"));
        }
    }
}
