use std::error::Error;

use kvnode::etf::Pid;
use kvnode::{Mail, Node, block_on};

/// Answers `send({:greeter, node}, {self(), "Ana"})` with `"Hello, Ana!"`, for as long as it runs.
pub fn greet(name: &str, cookie: &str) -> Result<(), Box<dyn Error>> {
    let node = Node::builder(name).cookie(cookie).start()?;
    let mut inbox = node.mailbox();
    inbox.process().register("greeter")?;
    while let Some(mail) = block_on(inbox.next()) {
        if let Mail::Message(message) = mail
            && let Ok((from, name)) = message.to::<(Pid, &str)>()
        {
            block_on(inbox.client().send_as(&from.into(), &format!("Hello, {name}!")))?;
        }
    }
    Ok(())
}
