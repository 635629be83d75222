//! Set of named tasks that run beside a main task and end with it.

use std::{collections::HashMap, future::Future, panic::resume_unwind};

use tokio::task::{Id, JoinError, JoinSet};
use tracing::error;

/// Named tasks that run beside a main task.
#[derive(Debug, Default)]
pub struct TaskSet {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl TaskSet {
    /// Starts a task.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Runs a main task, then cancels the other tasks and waits until they have ended.
    ///
    /// # Panics
    /// If one of the tasks panicked, with the payload of that panic.
    pub async fn run<T>(mut self, main: impl Future<Output = T>) -> T {
        let ended = tokio::select! {
            output = main => Ok(output),
            panicked = Self::panicked(&mut self.tasks) => Err(panicked),
        };
        match ended {
            Ok(output) => {
                self.tasks.shutdown().await;
                output
            }
            Err(panicked) => {
                let task = self.names.get(&panicked.id()).copied().unwrap_or_default();
                error!(event = "task_panicked", task, "a task panicked; the process ends");
                resume_unwind(panicked.into_panic())
            }
        }
    }

    /// Waits until one of the tasks panics.
    async fn panicked(tasks: &mut JoinSet<()>) -> JoinError {
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Err(error) if error.is_panic() => return error,
                _ => {}
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::TaskSet;

    #[tokio::test]
    async fn tasks_end_with_the_main_task() {
        let mut tasks = TaskSet::default();
        let held = Arc::new(());
        let of_task = Arc::clone(&held);
        tasks.spawn("waits", async move {
            pending::<()>().await;
            drop(of_task);
        });
        tasks.spawn("ends", async {});
        assert_eq!(tasks.run(async { 7 }).await, 7);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn panic_of_a_task_ends_the_main_task() {
        let mut tasks = TaskSet::default();
        tasks.spawn("ends", async {});
        tasks.spawn("breaks", async { panic!("broken") });
        tasks.run(pending::<()>()).await;
    }
}
