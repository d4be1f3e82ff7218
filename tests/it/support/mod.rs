//! The built binary, an application that can be told how to behave, and a sender: real sockets, real files.

pub mod app;
pub mod gateway;
pub mod h2;
pub mod http;
pub mod raw;

pub use app::{FakeApp, Seen, reserve};
pub use gateway::Gateway;

/// GitHub's documented example secret and body, and its signature of them.
/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>
pub const SECRET: &str = "It's a Secret to Everybody";
pub const HELLO: &[u8] = b"Hello, World!";
pub const HELLO_SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

/// GitHub's signature of `body`.
pub fn sign(body: &[u8]) -> String {
    sign_with(SECRET, body)
}

/// The same with another secret.
pub fn sign_with(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", mac(secret, body))
}

/// HMAC-SHA256 in hexadecimal.
pub fn mac(secret: &str, content: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(content);
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}
