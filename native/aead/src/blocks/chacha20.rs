//! Key stream of as many blocks as there are lanes, and between its rounds Poly1305 of other blocks: the multiplier and the vector units are different
//! parts of a processor, and neither waits for the other.

use super::lanes::{Lanes, MOST, Quarter};
use super::poly1305::Poly1305;

/// What the lanes' blocks begin with: counter and nonce of each.
pub(crate) type Rows<L> = [L; 4];

/// What is to be absorbed between the rounds: a whole block of data for each lane, and by whom. Always something, so that no branch parts the rounds, and
/// the engine's compiler may order all instructions of all rounds as it likes.
pub(crate) type Pending<'a> = [(&'a [u8; 64], usize); MOST];

const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

macro_rules! quarter_rounds {
    ($v:ident, $orders:ident, $([$a:literal, $b:literal, $c:literal, $d:literal]),*) => {
        $($v[$a] = $v[$a].add($v[$b]);)*
        $($v[$d] = $v[$d].xor_rotate::<16>($v[$a], $orders);)*
        $($v[$c] = $v[$c].add($v[$d]);)*
        $($v[$b] = $v[$b].xor_rotate::<12>($v[$c], $orders);)*
        $($v[$a] = $v[$a].add($v[$b]);)*
        $($v[$d] = $v[$d].xor_rotate::<8>($v[$a], $orders);)*
        $($v[$c] = $v[$c].add($v[$d]);)*
        $($v[$b] = $v[$b].xor_rotate::<7>($v[$c], $orders);)*
    };
}

#[inline(always)]
fn double_round<L: Lanes>(v: &mut [L; 16], orders: L::Orders) {
    quarter_rounds!(v, orders, [0, 4, 8, 12], [1, 5, 9, 13]);
    quarter_rounds!(v, orders, [2, 6, 10, 14], [3, 7, 11, 15]);
    quarter_rounds!(v, orders, [0, 5, 10, 15], [1, 6, 11, 12]);
    quarter_rounds!(v, orders, [2, 7, 8, 13], [3, 4, 9, 14]);
}

/// Writes one block of key stream for every lane to `out`; each lane's `pending` is absorbed by its `poly`, by the last one where there are not so many.
#[inline(never)]
pub(crate) fn blocks<L: Lanes, const N: usize>(
    key: &[u32; 8],
    rows: &Rows<L>,
    pending: &Pending<'_>,
    poly: &mut [Poly1305; N],
    out: &mut [[u8; 64]; MOST],
) {
    let [c0, c1, c2, c3] = CONSTANTS.map(L::splat);
    let [k0, k1, k2, k3, k4, k5, k6, k7] = key.map(L::splat);
    let [counter, n0, n1, n2] = *rows;
    let start = [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counter, n0, n1, n2];
    let mut v = start;
    let orders = L::orders();
    // Written out, for a loop would part the rounds, too.
    macro_rules! four_rounds {
        ($lane:literal) => {{
            let (text, owner) = pending[$lane];
            let text = text.as_chunks().0;
            let poly = &mut poly[owner.min(N - 1)];
            double_round(&mut v, orders);
            if $lane < L::WIDTH {
                poly.blocks(&text[..2]);
            }
            double_round(&mut v, orders);
            if $lane < L::WIDTH {
                poly.blocks(&text[2..]);
            }
        }};
    }
    four_rounds!(0);
    four_rounds!(1);
    four_rounds!(2);
    four_rounds!(3);
    double_round(&mut v, orders);
    double_round(&mut v, orders);
    macro_rules! store {
        ($quarter:ident, $($n:literal)*) => {
            L::store([$(v[$n].add(start[$n])),*], out, Quarter::$quarter)
        };
    }
    store!(FIRST, 0 1 2 3);
    store!(SECOND, 4 5 6 7);
    store!(THIRD, 8 9 10 11);
    store!(FOURTH, 12 13 14 15);
}
