//! Compressed terms (tag 80), which a caller gets from `term_to_binary(Term, [compressed])`.
//!
//! The format stands only directly behind the version byte (erl_ext_dist, "Introduction"): size:32 of the term's
//! own bytes, then zlib. A BEAM never sends a message in this form, but takes one. What comes out is as
//! untrusted as what went in: it goes through [`Cursor`] next.

use flate2::{Decompress, FlushDecompress, Status};

use super::split::{Cursor, TermError};

/// First step of the output's growth.
const STEP_BYTES: usize = 16 << 10;

/// Inflates what follows tag 80. Gives the term's bytes (without a version byte) and how many bytes of
/// `after_tag_80` it took.
///
/// The output grows as bytes come out and is never allocated by the size that is claimed, so memory stays in
/// proportion to what the peer has sent (zlib packs by 1,032 at most) and below `size_bytes_max` anyway.
///
/// # Errors
/// [`TermError::Compressed`] where the claimed size is over `size_bytes_max` or is not what comes out, or where
/// the bytes are not zlib's; [`TermError::Truncated`] where they end too early. Both are the sender's fault.
pub fn inflate(after_tag_80: &[u8], size_bytes_max: usize) -> Result<(Vec<u8>, usize), TermError> {
    let mut cursor = Cursor::new(after_tag_80);
    let size = cursor.len32()?;
    if size > size_bytes_max {
        return Err(TermError::Compressed);
    }
    let input = cursor.rest();
    let mut zlib = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let (read, written) = (zlib.total_in() as usize, out.len());
        if written == out.capacity() {
            // Room for one byte more than there should be, to notice when there are more.
            out.reserve_exact((size + 1).saturating_sub(written).clamp(1, STEP_BYTES.max(written)));
        }
        #[expect(clippy::indexing_slicing, reason = "no more is read than there is")]
        let status = zlib.decompress_vec(&input[read..], &mut out, FlushDecompress::None);
        match status.map_err(|_| TermError::Compressed)? {
            _ if out.len() > size => return Err(TermError::Compressed),
            Status::StreamEnd if out.len() == size => return Ok((out, 4 + zlib.total_in() as usize)),
            Status::StreamEnd => return Err(TermError::Compressed),
            _ if zlib.total_in() as usize == read && out.len() == written && written < out.capacity() => {
                return Err(TermError::Truncated);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn compressed(bytes: &[u8], claimed: u32) -> Vec<u8> {
        let mut zlib = ZlibEncoder::new(claimed.to_be_bytes().to_vec(), Compression::best());
        zlib.write_all(bytes).unwrap();
        zlib.finish().unwrap()
    }

    #[test]
    fn what_was_deflated_comes_out_and_the_rest_is_left() {
        for size in [0, 1, 100, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut input = compressed(&bytes, size as u32);
            let len = input.len();
            input.extend([1, 2, 3]);
            assert_eq!(inflate(&input, size), Ok((bytes, len)));
        }
    }

    #[test]
    fn a_wrong_size_is_refused_in_both_directions() {
        for claimed in [0, 1, 99, 101, 1 << 20, u32::MAX] {
            let input = compressed(&[7; 100], claimed);
            assert_eq!(inflate(&input, usize::MAX), Err(TermError::Compressed), "{claimed}");
        }
        assert_eq!(inflate(&compressed(&[7; 100], 100), 99), Err(TermError::Compressed));
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes: Vec<u8> = (0..2000u32).flat_map(|at| (at * at).to_be_bytes()).collect();
        let input = compressed(&bytes, bytes.len() as u32);
        for len in 0..input.len() {
            assert_eq!(inflate(&input[..len], 1 << 20), Err(TermError::Truncated), "{len}");
        }
    }

    #[test]
    fn every_corrupted_byte_is_survived() {
        let bytes: Vec<u8> = (0..500u32).flat_map(|at| (at * at).to_be_bytes()).collect();
        let input = compressed(&bytes, bytes.len() as u32);
        for at in 0..input.len() {
            for bit in 0..8 {
                let mut input = input.clone();
                input[at] ^= 1 << bit;
                if let Ok((out, _)) = inflate(&input, 1 << 20) {
                    // Only the header's compression level says nothing about the contents.
                    assert_eq!(out, bytes, "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_bomb_ends_at_the_claimed_size() {
        let bomb = compressed(&vec![0; 64 << 20], 1000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(TermError::Compressed));
    }
}
