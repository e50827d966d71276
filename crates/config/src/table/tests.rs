//! A request to match, and the table of the API's precedence.

use super::RequestView;

/// A request of a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn get(host: &str, target: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            host: host.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
        }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        &self.method
    }
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
    fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
    fn header(&self, lowercase_name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| name == lowercase_name)
            .map(|(_, value)| value.as_bytes())
    }
}
