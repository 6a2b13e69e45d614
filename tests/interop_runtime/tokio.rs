//! Handlers that await what is tokio's.

use std::net::SocketAddr;
use std::time::Duration;

use kvnode::etf::Atom;
use kvnode::{Context, Never, ReplyTo, Server, ServerRef, block_on};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::wait::PATIENCE;
use crate::support::{Epmd, Running};

/// Waits by tokio's timers and sockets.
struct Waiter;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Sleep(u64),
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "there is no runtime to send by"))]
    Ask(String, String),
}

impl Server for Waiter {
    type Call = Call;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
        match call {
            Call::Sleep(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                from.reply(&ms);
            }
            Call::Ask(address, text) => {
                let address: SocketAddr = address.parse().expect("the test names one");
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("the test listens");
                stream.write_all(text.as_bytes()).await.expect("it is sent");
                stream.shutdown().await.expect("it is sent");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("it is answered");
                from.reply(&answer);
            }
        }
    }
}

/// What the page says of it is what happens.
#[test]
fn without_a_runtime_a_handler_that_waits_for_tokio_ends_with_what_the_page_says() {
    const SAID: &str = "there is no reactor running, must be called from the context of a Tokio 1.x runtime";
    let page = include_str!("../../docs/library.md");
    assert!(page.contains("{:panic, \"there is no reactor running"), "docs/library.md tells of it");
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    node.serve(Waiter).register("waiter").expect("the name is free");
    let ended = block_on(node.call::<Atom, _>(
        &ServerRef::local("waiter"),
        &(kvnode::etf::atom("sleep"), 1),
        PATIENCE,
    ));
    let reason = format!("{:?}", ended.expect_err("the server has ended"));
    assert!(reason.contains(SAID), "{reason}");
}

#[cfg(feature = "tokio")]
mod inside {
    use std::sync::Arc;
    use std::thread;

    use kvnode::etf::{TermView, atom};
    use kvnode::process::Dispatch;
    use kvnode::{Caller, GenServer, Node, OwnedCaller, Turn, unblock};
    use smol::channel::Sender;
    use tokio::runtime::{Handle, Runtime};

    use super::*;
    use crate::support::COOKIE;

    fn runtime() -> Runtime {
        Runtime::new().expect("it has threads")
    }

    /// Answers each connection with what it was sent, in capitals, by a thread of the test.
    fn shouting() -> SocketAddr {
        use std::io::{Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the handler connects");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("it is text");
            stream.write_all(text.to_uppercase().as_bytes()).expect("it is read");
        });
        address
    }

    #[track_caller]
    fn handlers_wait_for_timers_and_sockets(node: &Node) {
        node.serve(Waiter).register("waiter").expect("the name is free");
        let waiter = ServerRef::local("waiter");
        let slept = node.call::<u64, _>(&waiter, &(atom("sleep"), 20), PATIENCE);
        assert_eq!(block_on(slept), Ok(20));
        let request = (atom("ask"), shouting().to_string(), "hello");
        assert_eq!(block_on(node.call::<String, _>(&waiter, &request, PATIENCE)), Ok("HELLO".into()));
    }

    #[test]
    fn in_the_runtime_that_the_node_was_given() {
        let epmd = Epmd::start();
        let runtime = runtime();
        let node = Running::start_as(&epmd, Node::builder("rust").tokio(runtime.handle().clone()));
        handlers_wait_for_timers_and_sockets(&node);
    }

    #[test]
    fn in_the_runtime_that_the_node_was_started_in() {
        let epmd = Epmd::start();
        let runtime = runtime();
        let builder = Node::builder("rust").cookie(COOKIE).epmd(epmd.config());
        let node = runtime.block_on(builder.start_async()).expect("it starts");
        handlers_wait_for_timers_and_sockets(&node);
        runtime.block_on(node.stop());
    }

    #[test]
    fn in_a_runtime_of_one_thread_that_is_waited_in() {
        let epmd = Epmd::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let builder = Node::builder("rust").cookie(COOKIE).epmd(epmd.config());
        runtime.block_on(async {
            let node = builder.start_async().await.expect("it starts");
            node.serve(Waiter).register("waiter").expect("the name is free");
            let request = (atom("sleep"), 20);
            let slept = node.call::<u64, _>(&ServerRef::local("waiter"), &request, PATIENCE).await;
            assert_eq!(slept, Ok(20));
            node.stop().await;
        });
    }

    /// Spawns where it answers and where it is dropped.
    struct Inline {
        told: Sender<&'static str>,
        dispatch: Arc<dyn Dispatch>,
    }

    impl GenServer for Inline {
        fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
            let later: OwnedCaller = caller.to_owned(&turn.me.pid);
            let request = kvnode::etf::OwnedTerm::from(request);
            let dispatch = Arc::clone(&self.dispatch);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                later.reply(&*dispatch, |w| _ = w.term(request.view()));
            });
        }

        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
    }

    impl Drop for Inline {
        fn drop(&mut self) {
            tell_from_within(&self.told, "inline");
        }
    }

    fn tell_from_within(told: &Sender<&'static str>, what: &'static str) {
        let told = told.clone();
        // It panics outside of a runtime.
        tokio::spawn(async move { told.send(what).await });
    }

    /// Says by a task of tokio's that it was dropped.
    struct Farewell(Sender<&'static str>, &'static str);

    impl Drop for Farewell {
        fn drop(&mut self) {
            tell_from_within(&self.0, self.1);
        }
    }

    struct Holds(#[allow(dead_code, reason = "it is dropped")] Farewell);

    impl Server for Holds {
        type Call = Never;
        type Cast = Never;
        type Info = Never;

        async fn handle_call(&mut self, call: Never, _from: ReplyTo, _cx: &mut Context<Self>) {
            match call {}
        }
    }

    #[test]
    fn tasks_and_drops_and_what_is_unblocked_are_inside_too() {
        let epmd = Epmd::start();
        let runtime = runtime();
        let node = Running::start_as(&epmd, Node::builder("rust").tokio(runtime.handle().clone()));
        let (tell, told) = smol::channel::unbounded();
        let next = || block_on(told.recv()).expect("it is told");

        let server = node.serve(Holds(Farewell(tell.clone(), "server")));
        server.kill();
        assert_eq!(next(), "server");

        let process = node.serve(Waiter);
        let task = {
            let tell = tell.clone();
            async move {
                let _kept = Farewell(tell.clone(), "task");
                tokio::time::sleep(Duration::from_millis(5)).await;
                tell.send("slept").await.expect("the test listens");
                std::future::pending().await
            }
        };
        process.spawn(task);
        assert_eq!(next(), "slept");
        process.kill();
        assert_eq!(next(), "task");

        let seen = {
            let tell = tell.clone();
            async move {
                let is_inside = unblock(|| Handle::try_current().is_ok()).await;
                tell.send(if is_inside { "inside" } else { "outside" }).await.expect("the test listens");
            }
        };
        node.spawn(seen);
        assert_eq!(next(), "inside");

        let left = Farewell(tell.clone(), "at the end");
        node.spawn(async move {
            let _left = left;
            std::future::pending().await
        });
        block_on(node.stop());
        assert_eq!(next(), "at the end");
    }

    #[test]
    fn an_inline_server_answers_from_a_task_of_tokios() {
        let epmd = Epmd::start();
        let runtime = runtime();
        let node = Running::start_as(&epmd, Node::builder("rust").tokio(runtime.handle().clone()));
        let (tell, told) = smol::channel::unbounded();
        let inline = node.serve_inline(Arc::new(Inline { told: tell, dispatch: node.dispatch() }));
        inline.register("inline").expect("the name is free");
        let answer = node.call::<u8, _>(&ServerRef::local("inline"), &7, PATIENCE);
        assert_eq!(block_on(answer), Ok(7));
        inline.kill();
        // The last one that has it drops it: mostly the node, else this thread.
        let inside = runtime.enter();
        drop(inline);
        drop(inside);
        assert_eq!(block_on(told.recv()), Ok("inline"));
    }
}
