//! A block's filter: which hashes may be in it.
//!
//! A Bloom filter (Bloom, CACM 13/7, 1970) of 10 bits a claim with 6 probes, made from two hashes (Kirsch and Mitzenmacher,
//! 2006). Only the first half of a hash counts, so that claims that begin alike are found.

use super::{Hash, prefix};

/// The bytes of a filter, for 64 claims.
pub const FILTER: usize = 80;

/// The bytes and bits that stand for `hash`.
pub fn bits(hash: &Hash) -> impl Iterator<Item = (usize, u8)> + use<> {
    // A block's hashes begin alike: mixed, so that all of their bits count (Stafford's mix 13, as in SplitMix64).
    let mut mixed = prefix(hash);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    let (first, second) = (mixed & 0xFFFF_FFFF, (mixed >> 32) | 1);
    (0..6u64).map(move |probe| {
        let spread = first.wrapping_add(second.wrapping_mul(probe)) & 0xFFFF_FFFF;
        let bit = (spread * (FILTER as u64 * 8)) >> 32;
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

/// Whether `hash` may be among those of the filter; one in a hundred others is taken for one of them.
pub fn may_have(filter: &[u8; FILTER], hash: &Hash) -> bool {
    bits(hash).all(|(byte, bit)| filter.get(byte).is_some_and(|byte| byte & bit != 0))
}
