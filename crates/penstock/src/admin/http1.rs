//! The admin address's HTTP: one answer for each request, bounded in time.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Answers until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    stop: CancellationToken,
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (answer, stop) = (answer.clone(), stop.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let answer = answer.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&request)) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                served = serving => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "an admin connection ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}
