//! The token of etcd's authentication: asked for by user and password, and again when it is not taken any more.

use hyper::header::HeaderValue;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::connection::{Connection, Head};
use super::{Inner, framed};
use crate::etcd::Error;
use crate::etcd::message::{AuthenticateRequest, AuthenticateResponse, Call};

/// What is known of the token.
#[derive(Debug)]
pub(super) enum Token {
    /// There is none, and the next request has to ask for it.
    Wanted,
    /// This is it.
    Known(HeaderValue),
    /// etcd's authentication is off: none is needed.
    NotNeeded,
}

impl Inner {
    /// The token for a request by this connection. `None`: the client has no user, or etcd asks for none. One caller asks for a
    /// new token, and others wait for it.
    ///
    /// # Errors
    ///
    /// None of them says that the request may have been done: it was not sent.
    pub(super) async fn token(
        &self,
        connection: &mut Connection,
        limit: Duration,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(user) = &self.config.user else { return Ok(None) };
        let mut token = self.token.lock().await;
        match &*token {
            Token::Known(token) => return Ok(Some(token.clone())),
            Token::NotNeeded => return Ok(None),
            Token::Wanted => {}
        }
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let frame = framed(&request).ok_or(Error::TooLarge { bytes: user.name.len(), bytes_max: None })?;
        let head = Head {
            path: AuthenticateRequest::PATH,
            token: None,
            limit: Some(limit),
            is_sent: &AtomicBool::new(false),
        };
        match connection.call(head, frame).await {
            Ok(answer) => {
                let answer: AuthenticateResponse = self.read(answer)?;
                let mut value = HeaderValue::try_from(answer.token)
                    .map_err(|_| Error::Denied { text: "its token is none".to_owned() })?;
                value.set_sensitive(true);
                *token = Token::Known(value.clone());
                Ok(Some(value))
            }
            Err(Error::Refused { text, .. }) if text.contains("authentication is not enabled") => {
                *token = Token::NotNeeded;
                Ok(None)
            }
            Err(error) if error.is_unknown() => Err(Error::unavailable(error)),
            Err(error) => Err(error),
        }
    }

    /// The token that requests have at present.
    pub(super) async fn known_token(&self) -> Option<HeaderValue> {
        match &*self.token.lock().await {
            Token::Known(token) => Some(token.clone()),
            Token::Wanted | Token::NotNeeded => None,
        }
    }

    /// The token that was sent (or that none was) is not right: another one is to be asked for. Gives whether that can be.
    pub(super) async fn forget_token(&self, sent: Option<&HeaderValue>) -> bool {
        if self.config.user.is_none() {
            return false;
        }
        let mut token = self.token.lock().await;
        let is_same = match &*token {
            Token::Known(known) => sent == Some(known),
            Token::NotNeeded => sent.is_none(),
            Token::Wanted => false,
        };
        if is_same {
            *token = Token::Wanted;
        }
        true
    }
}
