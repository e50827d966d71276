//! URLRewrite: another host or path for the backend; the query stays.

use crate::exchange::Exchange;
use config::UrlRewrite;

pub(crate) fn apply(rewrite: &UrlRewrite, x: &mut Exchange) {
    let target = rewrite.target(x.head.path(), x.head.query(), x.matched_prefix);
    x.head.set_target(&target);
    if let Some(host) = &rewrite.hostname {
        x.head.set_host(host);
    }
}
