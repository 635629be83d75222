//! Handle of a submitted request.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

/// Future that completes when the request is answered. Its output is the result of the reply closure. Dropping it does
/// not cancel the request.
#[derive(Debug)]
#[must_use = "await it to wait for the answer"]
pub struct SubmitHandle<A>(oneshot::Receiver<A>);

impl<A: Send + 'static> SubmitHandle<A> {
    /// Returns a function that completes a request with its outcome, and the handle of the request.
    pub(super) fn begin<O: 'static>(
        respond: impl FnOnce(O) -> A + Send + 'static,
    ) -> (impl FnOnce(O) + Send + 'static, Self) {
        let (sender, receiver) = oneshot::channel();
        // The receiver may be dropped.
        (move |outcome| drop(sender.send(respond(outcome))), Self(receiver))
    }
}

impl<A> Future for SubmitHandle<A> {
    type Output = A;

    /// # Panics
    /// If the reply closure panicked.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(answer) => Poll::Ready(answer),
            Err(_) => resume_unwind(Box::new("the answer was not made")),
        }
    }
}
