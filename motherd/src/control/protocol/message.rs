//! The envelope: requests and replies to and from the JSON objects of Varlink (<https://varlink.org/Method-Call>).
//!
//! A server is strict with what it reads (an unknown parameter is an error that names it), a client is lenient (a
//! later server adds fields).

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, Value, json};

use super::{
    Acted, Call, ConfigPlan, DESCRIPTION, Events, Failure, FdStore, How, INTERFACE, Reply, Request,
    RequestError, SERVICE_DESCRIPTION, SERVICE_INTERFACE, ServiceStatus, ServiceSummary, VERSION,
};

impl Request {
    /// The message that asks for it, as a client sends it.
    #[must_use]
    pub fn encode(&self) -> Value {
        let parameters = match self {
            Request::List | Request::Timers | Request::Manager | Request::Unschedule | Request::Ending => {
                json!({})
            }
            Request::End { how, status, force } => {
                let mut parameters = json!({});
                if *how == How::Exit {
                    parameters["status"] = json!(status);
                }
                if *force {
                    parameters["force"] = json!(true);
                }
                parameters
            }
            Request::Schedule { how, at, message } => json!({ "how": how, "at": at, "message": message }),
            Request::Status { services, brief: true } => json!({ "services": services, "brief": true }),
            Request::Status { services, brief: false }
            | Request::FdStore { services }
            | Request::Tree { services }
            | Request::Skip { services }
            | Request::Start { services }
            | Request::Restart { services }
            | Request::Reload { services } => json!({ "services": services }),
            Request::Why { service } => json!({ "service": service }),
            Request::Run { service, definition, hold } => {
                json!({ "service": service, "definition": definition, "hold": hold })
            }
            Request::Stop { services, force: false } => json!({ "services": services }),
            Request::Stop { services, force: true } => json!({ "services": services, "force": true }),
            Request::Kill { services, signal } => json!({ "services": services, "signal": signal }),
            Request::ReloadConfig { dry_run: false } => json!({}),
            Request::ReloadConfig { dry_run: true } => json!({ "dry_run": true }),
            Request::Upgrade { path, initldr, check } => {
                let mut parameters = json!({ "initldr": initldr, "check": check });
                if let Some(path) = path {
                    parameters["path"] = json!(path);
                }
                parameters
            }
            Request::Events { services, after: None, .. } => json!({ "services": services }),
            Request::Events { services, after, .. } => json!({ "services": services, "after": after }),
        };
        let mut message =
            json!({ "method": format!("{INTERFACE}.{}", self.method()), "parameters": parameters });
        if let Request::Events { follow: true, .. } = self {
            message["more"] = Value::Bool(true);
        }
        message
    }
}

/// A message of a client, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is asked, or why it cannot even be asked.
    pub call: Result<Call, RequestError>,
    /// The client wants no reply.
    pub one_way: bool,
}

impl Message {
    /// Reads the JSON text of one message. `Err` is for text that is no Varlink message at all: there is nothing to
    /// answer, and the connection is of no use any more.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn decode(text: &[u8]) -> Result<Self, serde_json::Error> {
        /// Exactly Varlink's keys of a call.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Envelope {
            method: String,
            #[serde(default)]
            parameters: Option<Map<String, Value>>,
            #[serde(default)]
            oneway: bool,
            #[serde(default)]
            more: bool,
            #[serde(default)]
            upgrade: bool,
        }
        let Envelope { method, parameters, oneway, more, upgrade } = serde_json::from_slice(text)?;
        let call = if upgrade {
            // Nothing here turns a connection into something else; `more` needs no refusal: one reply is a stream too.
            Err(RequestError::InvalidParameter { parameter: "upgrade: no method here upgrades".into() })
        } else {
            decode_call(&method, parameters.unwrap_or_default(), more)
        };
        Ok(Self { call, one_way: oneway })
    }
}

/// No parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

/// The parameters of most methods.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Services {
    services: Vec<String>,
}

impl Services {
    /// For the methods that need to be told a service.
    fn some(self) -> Result<Vec<String>, RequestError> {
        if self.services.is_empty() {
            return Err(RequestError::InvalidParameter {
                parameter: "services: at least one is needed".into(),
            });
        }
        Ok(self.services)
    }
}

/// The parameters of `Status`, `Tree` and `FdStore`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SomeServices {
    services: Option<Vec<String>>,
}

/// The parameters of `Why`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyParameters {
    service: String,
}

/// The parameters of `Events`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsParameters {
    services: Option<Vec<String>>,
    after: Option<u64>,
}

/// The parameters of `Status`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusParameters {
    services: Option<Vec<String>>,
    brief: Option<bool>,
}

/// The parameters of `Run`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunParameters {
    service: String,
    definition: String,
    hold: Option<bool>,
}

/// The parameters of `Stop`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopParameters {
    services: Vec<String>,
    force: Option<bool>,
}

/// The parameters of `PowerOff` and its likes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndParameters {
    force: Option<bool>,
}

/// The parameters of `Exit`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitParameters {
    status: u8,
    force: Option<bool>,
}

/// The parameters of `Schedule`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleParameters {
    how: How,
    at: u64,
    message: Option<String>,
}

/// The parameters of `Upgrade`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeParameters {
    path: Option<String>,
    initldr: Option<bool>,
    check: Option<bool>,
}

/// The parameters of `ReloadConfig`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadConfigParameters {
    dry_run: Option<bool>,
}

/// The parameters of `Kill`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillParameters {
    services: Vec<String>,
    signal: i32,
}

/// The parameters of `GetInterfaceDescription`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceParameters {
    interface: String,
}

fn decode_call(method: &str, parameters: Map<String, Value>, more: bool) -> Result<Call, RequestError> {
    let Some((interface, name)) = method.rsplit_once('.') else {
        return Err(RequestError::MethodNotFound { method: method.into() });
    };
    if interface == SERVICE_INTERFACE {
        return match name {
            "GetInfo" => from_parameters(parameters).map(|NoParameters {}| Call::GetInfo),
            "GetInterfaceDescription" => from_parameters(parameters)
                .map(|InterfaceParameters { interface }| Call::GetInterfaceDescription { interface }),
            _ => Err(RequestError::MethodNotFound { method: method.into() }),
        };
    }
    if interface != INTERFACE {
        return Err(RequestError::InterfaceNotFound { interface: interface.into() });
    }
    let some = |parameters| from_parameters::<Services>(parameters)?.some();
    let none = |request| from_parameters::<NoParameters>(parameters.clone()).map(|NoParameters {}| request);
    let end = |how| {
        let EndParameters { force } = from_parameters(parameters.clone())?;
        Ok(Request::End { how, status: 0, force: force.unwrap_or_default() })
    };
    let request = match name {
        "List" => none(Request::List)?,
        "Status" => {
            let StatusParameters { services, brief } = from_parameters(parameters)?;
            Request::Status { services: services.unwrap_or_default(), brief: brief.unwrap_or_default() }
        }
        "Tree" => Request::Tree {
            services: from_parameters::<SomeServices>(parameters)?.services.unwrap_or_default(),
        },
        "Why" => {
            let WhyParameters { service } = from_parameters(parameters)?;
            Request::Why { service }
        }
        "Timers" => none(Request::Timers)?,
        "Events" => {
            let EventsParameters { services, after } = from_parameters(parameters)?;
            Request::Events { services: services.unwrap_or_default(), after, follow: more }
        }
        "Start" => Request::Start { services: some(parameters)? },
        "Run" => {
            let RunParameters { service, definition, hold } = from_parameters(parameters)?;
            Request::Run { service, definition, hold: hold.unwrap_or_default() }
        }
        "Stop" => {
            let StopParameters { services, force } = from_parameters(parameters)?;
            Request::Stop { services: Services { services }.some()?, force: force.unwrap_or_default() }
        }
        "Restart" => Request::Restart { services: some(parameters)? },
        "Reload" => Request::Reload { services: some(parameters)? },
        "ReloadConfig" => {
            let ReloadConfigParameters { dry_run } = from_parameters(parameters)?;
            Request::ReloadConfig { dry_run: dry_run.unwrap_or_default() }
        }
        "Manager" => none(Request::Manager)?,
        "FdStore" => Request::FdStore {
            services: from_parameters::<SomeServices>(parameters)?.services.unwrap_or_default(),
        },
        "Upgrade" => {
            let UpgradeParameters { path, initldr, check } = from_parameters(parameters)?;
            let (initldr, check) = (initldr.unwrap_or_default(), check.unwrap_or_default());
            Request::Upgrade { path, initldr, check }
        }
        "Kill" => {
            let KillParameters { services, signal } = from_parameters(parameters)?;
            if !(1..=64).contains(&signal) {
                let parameter = format!("signal: {signal} is not between 1 and 64");
                return Err(RequestError::InvalidParameter { parameter });
            }
            Request::Kill { services: Services { services }.some()?, signal }
        }
        "PowerOff" => end(How::Poweroff)?,
        "Reboot" => end(How::Reboot)?,
        "Halt" => end(How::Halt)?,
        "Kexec" => end(How::Kexec)?,
        "SoftReboot" => end(How::SoftReboot)?,
        "Exit" => {
            let ExitParameters { status, force } = from_parameters(parameters)?;
            Request::End { how: How::Exit, status, force: force.unwrap_or_default() }
        }
        "Schedule" => {
            let ScheduleParameters { how, at, message } = from_parameters(parameters)?;
            Request::Schedule { how, at, message: message.unwrap_or_default() }
        }
        "Unschedule" => none(Request::Unschedule)?,
        "Ending" => none(Request::Ending)?,
        "Skip" => Request::Skip { services: some(parameters)? },
        _ => return Err(RequestError::MethodNotFound { method: method.into() }),
    };
    Ok(Call::MotherD(request))
}

fn from_parameters<T: DeserializeOwned>(parameters: Map<String, Value>) -> Result<T, RequestError> {
    serde_json::from_value(Value::Object(parameters))
        .map_err(|error| RequestError::InvalidParameter { parameter: error.to_string() })
}

/// The reply to [`Request::Status`] as it grows: each part is the next bytes of the message.
#[derive(Debug, Default)]
pub struct StatusText {
    begun: bool,
}

impl StatusText {
    /// One service more.
    pub fn service(&mut self, service: &ServiceStatus, text: &mut Vec<u8>) {
        text.extend_from_slice(if self.begun { b"," } else { STATUS_BEGINS });
        self.begun = true;
        write_json(service, text);
    }

    /// There are no more.
    pub fn end(self, text: &mut Vec<u8>) {
        if !self.begun {
            text.extend_from_slice(STATUS_BEGINS);
        }
        text.extend_from_slice(format!("],\"version\":{VERSION}}}}}").as_bytes());
    }
}

/// How a reply to `Status` begins, up to the first service.
pub(in crate::control) const STATUS_BEGINS: &[u8] = b"{\"parameters\":{\"services\":[";

fn write_json(value: &impl Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("the wire's types have string keys, and a Vec takes all");
}

impl Reply {
    /// The message as the server sends it, what of them is long without a tree of values in between.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        /// The envelope of a list.
        #[derive(Serialize)]
        struct Message<'a> {
            parameters: Parameters<'a>,
        }
        #[derive(Serialize)]
        struct Parameters<'a> {
            services: &'a [ServiceSummary],
            version: u32,
        }
        let mut text = Vec::new();
        match self {
            Reply::List(services) => {
                write_json(&Message { parameters: Parameters { services, version: VERSION } }, &mut text);
            }
            Reply::Status(services) => {
                let mut status = StatusText::default();
                services.iter().for_each(|service| status.service(service, &mut text));
                status.end(&mut text);
            }
            Reply::Configured(_)
            | Reply::Manager(_)
            | Reply::FdStore(_)
            | Reply::Upgraded(_)
            | Reply::Timers(_)
            | Reply::Events(_)
            | Reply::Acted(_)
            | Reply::Ending
            | Reply::Scheduled(_)
            | Reply::Awaited(_)
            | Reply::Why(_)
            | Reply::Tree(_)
            | Reply::Error(_) => write_json(&self.encode(), &mut text),
        }
        text
    }

    /// The message as a value.
    #[must_use]
    pub fn encode(&self) -> Value {
        match self {
            Reply::List(services) => json!({ "parameters": { "version": VERSION, "services": services } }),
            Reply::Status(services) => json!({ "parameters": { "version": VERSION, "services": services } }),
            Reply::Tree(services) => json!({ "parameters": { "version": VERSION, "services": services } }),
            Reply::Why(why) => json!({ "parameters": { "version": VERSION, "why": why } }),
            Reply::Acted(services) => json!({ "parameters": { "version": VERSION, "services": services } }),
            Reply::Configured(ConfigPlan { applied, errors, warnings, changes }) => {
                json!({ "parameters": {
                    "version": VERSION,
                    "applied": applied,
                    "errors": errors,
                    "warnings": warnings,
                    "changes": changes,
                } })
            }
            Reply::Manager(manager) => json!({ "parameters": { "version": VERSION, "manager": manager } }),
            Reply::FdStore(FdStore { slots, used, capacity }) => {
                json!({ "parameters": {
                    "version": VERSION,
                    "slots": slots,
                    "used": used,
                    "capacity": capacity,
                } })
            }
            Reply::Upgraded(upgraded) => {
                json!({ "parameters": { "version": VERSION, "upgrade": upgraded } })
            }
            Reply::Timers(timers) => json!({ "parameters": { "version": VERSION, "timers": timers } }),
            Reply::Events(Events { events, lost }) => {
                json!({ "parameters": { "version": VERSION, "events": events, "lost": lost } })
            }
            Reply::Ending => json!({ "parameters": { "version": VERSION } }),
            Reply::Scheduled(scheduled) => {
                let mut parameters = json!({ "version": VERSION });
                if let Some(scheduled) = scheduled {
                    parameters["scheduled"] = json!(scheduled);
                }
                json!({ "parameters": parameters })
            }
            Reply::Awaited(status) => {
                let mut parameters = json!(status);
                parameters["version"] = json!(VERSION);
                json!({ "parameters": parameters })
            }
            Reply::Error(error) => error.encode(),
        }
    }

    /// Whether another reply follows this one.
    #[must_use]
    pub fn continues(text: &[u8]) -> bool {
        /// The one key that matters here.
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            continues: bool,
        }
        serde_json::from_slice(text).is_ok_and(|Envelope { continues }| continues)
    }

    /// Reads the answer to `request`, as a client does. Unknown fields are ignored: a later server adds some.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn decode(request: &Request, text: &[u8]) -> Result<Self, serde_json::Error> {
        /// Varlink's keys of a reply.
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(default)]
            parameters: Value,
            #[serde(default)]
            error: Option<String>,
        }
        /// `services` of every reply that has any.
        #[derive(Deserialize)]
        struct Of<T> {
            services: Vec<T>,
        }
        /// The reply to `Events`.
        #[derive(Deserialize)]
        struct OfEvents {
            events: Vec<super::Event>,
            lost: u64,
        }
        /// The same for the long ones, read without a tree of values in between.
        #[derive(Deserialize)]
        struct Long<T> {
            parameters: Option<LongParameters<T>>,
            error: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct LongParameters<T> {
            services: Option<Vec<T>>,
        }
        fn long<T: DeserializeOwned>(text: &[u8]) -> Result<Option<Vec<T>>, serde_json::Error> {
            let Long { parameters, error } = serde_json::from_slice(text)?;
            // An error is short.
            Ok(parameters.and_then(|parameters| parameters.services).filter(|_| error.is_none()))
        }
        if *request == Request::List
            && let Some(services) = long(text)?
        {
            return Ok(Reply::List(services));
        }
        if let Request::Status { .. } = request
            && let Some(services) = long(text)?
        {
            return Ok(Reply::Status(services));
        }
        let Envelope { parameters, error } = serde_json::from_slice(text)?;
        if let Some(name) = error {
            return RequestError::decode(&name, parameters).map(Reply::Error);
        }
        Ok(match request {
            Request::List => Reply::List(serde_json::from_value::<Of<_>>(parameters)?.services),
            Request::Status { .. } => Reply::Status(serde_json::from_value::<Of<_>>(parameters)?.services),
            Request::ReloadConfig { .. } => Reply::Configured(serde_json::from_value(parameters)?),
            Request::Manager => {
                let manager = parameters.get("manager").cloned().unwrap_or_default();
                Reply::Manager(serde_json::from_value(manager)?)
            }
            Request::FdStore { .. } => Reply::FdStore(serde_json::from_value(parameters)?),
            Request::Upgrade { .. } => {
                let upgraded = parameters.get("upgrade").cloned().unwrap_or_default();
                Reply::Upgraded(serde_json::from_value(upgraded)?)
            }
            Request::Tree { .. } => Reply::Tree(serde_json::from_value::<Of<_>>(parameters)?.services),
            Request::Why { .. } => {
                let why = parameters.get("why").cloned().unwrap_or_default();
                Reply::Why(Box::new(serde_json::from_value(why)?))
            }
            Request::Timers => {
                let timers = parameters.get("timers").cloned().unwrap_or_default();
                Reply::Timers(serde_json::from_value(timers)?)
            }
            Request::Events { .. } => {
                let OfEvents { events, lost } = serde_json::from_value(parameters)?;
                Reply::Events(Events { events, lost })
            }
            Request::Start { .. }
            | Request::Run { .. }
            | Request::Stop { .. }
            | Request::Restart { .. }
            | Request::Reload { .. }
            | Request::Skip { .. }
            | Request::Kill { .. } => Reply::Acted(serde_json::from_value::<Of<_>>(parameters)?.services),
            Request::End { .. } => Reply::Ending,
            Request::Schedule { .. } | Request::Unschedule => match parameters.get("scheduled") {
                Some(scheduled) => Reply::Scheduled(serde_json::from_value(scheduled.clone())?),
                None => Reply::Scheduled(None),
            },
            Request::Ending => Reply::Awaited(serde_json::from_value(parameters)?),
        })
    }
}

impl RequestError {
    fn encode(&self) -> Value {
        let (interface, name, parameters) = match self {
            RequestError::NoSuchService { service, near: None } => {
                (INTERFACE, "NoSuchService", json!({ "service": service }))
            }
            RequestError::NoSuchService { service, near: Some(near) } => {
                (INTERFACE, "NoSuchService", json!({ "service": service, "near": near }))
            }
            RequestError::NotRunning { service } => (INTERFACE, "NotRunning", json!({ "service": service })),
            RequestError::PermissionDenied { method, uid } => {
                (INTERFACE, "PermissionDenied", json!({ "method": method, "uid": uid }))
            }
            RequestError::Failed { failures, done } => {
                (INTERFACE, "Failed", json!({ "failures": failures, "done": done }))
            }
            RequestError::Refused { why } => (INTERFACE, "Refused", json!({ "why": why })),
            RequestError::InterfaceNotFound { interface } => {
                (SERVICE_INTERFACE, "InterfaceNotFound", json!({ "interface": interface }))
            }
            RequestError::MethodNotFound { method } => {
                (SERVICE_INTERFACE, "MethodNotFound", json!({ "method": method }))
            }
            RequestError::InvalidParameter { parameter } => {
                (SERVICE_INTERFACE, "InvalidParameter", json!({ "parameter": parameter }))
            }
            RequestError::Unknown { name, parameters } => {
                return json!({ "error": name, "parameters": parameters });
            }
        };
        json!({ "error": format!("{interface}.{name}"), "parameters": parameters })
    }

    pub(crate) fn decode(name: &str, parameters: Value) -> Result<Self, serde_json::Error> {
        /// The fields of every error; each has some of them.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Fields {
            service: String,
            near: Option<String>,
            method: String,
            uid: u32,
            failures: Vec<Failure>,
            done: Vec<Acted>,
            why: String,
            interface: String,
            parameter: String,
        }
        let unknown = |parameters: &Value| RequestError::Unknown {
            name: name.into(),
            parameters: parameters.to_string(),
        };
        let Some((interface, short)) = name.rsplit_once('.') else { return Ok(unknown(&parameters)) };
        if parameters.is_null() {
            return Ok(unknown(&parameters));
        }
        let fields: Fields = serde_json::from_value(parameters.clone())?;
        Ok(match (interface, short) {
            (INTERFACE, "NoSuchService") => {
                RequestError::NoSuchService { service: fields.service, near: fields.near }
            }
            (INTERFACE, "NotRunning") => RequestError::NotRunning { service: fields.service },
            (INTERFACE, "PermissionDenied") => {
                RequestError::PermissionDenied { method: fields.method, uid: fields.uid }
            }
            (INTERFACE, "Failed") => RequestError::Failed { failures: fields.failures, done: fields.done },
            (INTERFACE, "Refused") => RequestError::Refused { why: fields.why },
            (SERVICE_INTERFACE, "InterfaceNotFound") => {
                RequestError::InterfaceNotFound { interface: fields.interface }
            }
            (SERVICE_INTERFACE, "MethodNotFound") => RequestError::MethodNotFound { method: fields.method },
            (SERVICE_INTERFACE, "InvalidParameter") => {
                RequestError::InvalidParameter { parameter: fields.parameter }
            }
            _ => unknown(&parameters),
        })
    }
}

/// The answer to `GetInfo`.
#[must_use]
pub fn info() -> Value {
    json!({ "parameters": {
        "vendor": "AltimatOS",
        "product": "MotherD",
        "version": env!("CARGO_PKG_VERSION"),
        "url": "https://github.com/AltimatOS/motherd",
        "interfaces": [SERVICE_INTERFACE, INTERFACE],
    }})
}

/// The answer to `GetInterfaceDescription`.
#[must_use]
pub fn interface_description(interface: &str) -> Value {
    let description = match interface {
        INTERFACE => DESCRIPTION,
        SERVICE_INTERFACE => SERVICE_DESCRIPTION,
        _ => return RequestError::InterfaceNotFound { interface: interface.into() }.encode(),
    };
    json!({ "parameters": { "description": description } })
}
