//! What becomes of a request that has its place in the order.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

/// Done when the request is answered, with what its answer gave. Not to wait for it changes nothing.
#[derive(Debug)]
#[must_use = "await it to wait for the answer"]
pub struct SubmitHandle<A>(oneshot::Receiver<A>);

impl<A: Send + 'static> SubmitHandle<A> {
    /// What will be settled when the given function is called.
    pub(super) fn begin<O: 'static>(
        respond: impl FnOnce(O) -> A + Send + 'static,
    ) -> (impl FnOnce(O) + Send + 'static, Self) {
        let (done, settled) = oneshot::channel();
        // If nobody waits any more, nobody is told.
        (move |outcome| drop(done.send(respond(outcome))), Self(settled))
    }
}

impl<A> Future for SubmitHandle<A> {
    type Output = A;

    /// # Panics
    /// If a defect made the answer panic.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(answer) => Poll::Ready(answer),
            Err(_) => resume_unwind(Box::new("the answer was not made")),
        }
    }
}
