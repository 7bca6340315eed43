//! The verifier for the web page: `scribe-proof` behind a dozen functions that JavaScript can call.
//!
//! `web/build-page` compiles it to WebAssembly and puts it, with `web/page/`, into one HTML file. It is *not* a second
//! verifier: it decides nothing that `scribe-proof` does not, and only turns answers into JSON for the page ([`check`]).
//! It has no clock, no files and no network, and imports nothing from the page.
//!
//! # How the page calls it
//!
//! JavaScript and WebAssembly share numbers and one memory. [`reserve`] gives the page a place of a given length, the
//! page writes bytes there, and the next call reads them; an answer lies at [`answer`], [`answer_length`] bytes long,
//! until the next call. A place moves when anything is reserved or answered, so the page asks for it each time.
//!
//! # Unsafe code
//!
//! There is none that touches memory: each place is a `Vec` that this crate owns, and only JavaScript writes through the
//! address it was told. What counts as unsafe is `no_mangle`, which gives a function the name that the page calls it by:
//! two functions of one name would be a danger. The names below are the only ones, and a WebAssembly module that calls
//! nothing outside has no others to meet.

#![deny(missing_docs)]
#![warn(clippy::unwrap_used)]

pub mod check;
mod json;

use std::cell::RefCell;

use check::{Input, Session};

thread_local! {
    /// A WebAssembly module has one thread; there is one page.
    static SESSION: RefCell<Session> = RefCell::new(Session::default());
}

fn with<T>(act: impl FnOnce(&mut Session) -> T) -> T {
    SESSION.with_borrow_mut(act)
}

/// Makes place for `length` bytes of an input and says where; 0 if that is longer than the input may be.
///
/// `which`: 0 receipt, 1 whom the user trusts, 2 entry key, 3 a piece of the value. An input keeps its bytes until it is
/// reserved again.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn reserve(which: u32, length: u32) -> *mut u8 {
    let Some(input) = Input::from_number(which) else {
        return std::ptr::null_mut();
    };
    with(|session| match session.reserve(input, length as usize) {
        Some(place) => place.as_mut_ptr(),
        None => std::ptr::null_mut(),
    })
}

/// Longest input of this kind, in bytes.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn longest(which: u32) -> u32 {
    Input::from_number(which).map_or(0, |input| input.longest() as u32)
}

/// Reads whom the user trusts, and answers what was understood.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn read_trust() {
    with(Session::read_trust);
}

/// Verifies the receipt, after [`read_trust`], and answers what is proved. With `has_key` not 0 the entry must have the
/// key given.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn verify(has_key: u32) {
    with(|session| session.verify(has_key != 0));
}

/// Begins with a value of `length` bytes (a whole number below 2^53), after [`verify`].
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn value_begin(length: f64) {
    // A length that is no whole number in range becomes one that no value has; then the value does not match.
    with(|session| session.value_begin(length as u64));
}

/// Takes the next piece of the value.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn value_piece() {
    with(Session::value_piece);
}

/// Ends the value and answers whether it is what the entry commits to.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn value_end() {
    with(Session::value_end);
}

/// Where the last answer lies: JSON in UTF-8.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    with(|session| session.answer().as_ptr())
}

/// How long the last answer is, in bytes.
#[expect(unsafe_code, reason = "called from the page by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn answer_length() -> u32 {
    with(|session| session.answer().len() as u32)
}
