//! A joined machine's side: its relay, whether it still belongs to the host, and the way there and
//! back.

use farhelm_core::presence::Reach;
use farhelm_link::clock::now;
use farhelm_link::device::FleetView;
use farhelm_proto::Code;

use super::{Report, Trouble, machine, relay};
use crate::commands::{Context, duration};
use crate::failure::Failure;
use crate::render::visible;
use crate::seen::Seen;
use crate::station::{Station, extra_ca};

/// How long the host's log may take to be read.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// Clocks that differ by more than this make expiries wrong.
const SKEW_MILLIS: u64 = 60_000;

pub(super) async fn look(context: &Context, report: &mut Report) -> Result<(), Failure> {
    machine::look(&context.home, report);
    let station = Station::joined(&context.home, context.host.as_deref()).await?;
    let Station::Joined { client, host } = &station else {
        return Ok(());
    };
    report.note("host", format!("{} {}", visible(&host.name), host.peer()));
    if !relay::look(&host.relay, extra_ca(), report).await {
        report.skip("membership", "the relay cannot be used");
        report.skip("round trip", "the relay cannot be used");
        return Ok(());
    }
    let view = client.fleet_within(PATIENCE).await;
    let member = view.as_ref().map_err(|error| {
        if matches!(error.code, Code::NotFound | Code::Revoked) {
            let cure = "look for this machine in `farhelm devices` on the host; if it is not there, join it again \
                        with `farhelm join LINK`";
            return Trouble::new(Code::Revoked, error.text.clone(), cure);
        }
        let cure = "start the host, and look at it with `farhelm doctor` there";
        Trouble::new(error.code, error.text.clone(), cure)
    });
    let member = member.and_then(belongs);
    if !report.look("membership", member) {
        report.skip("round trip", "this machine may not write to the host");
        return Ok(());
    }
    let Ok(view) = view else { return Ok(()) };
    let seen = station.seen(&view.fleet).await?;
    if report.look("round trip", way(&seen)) {
        report.look("host's clock", clock(&seen));
        report.look("newest events", withheld(&seen));
    }
    Ok(())
}

fn belongs(view: &FleetView) -> Result<String, Trouble> {
    let member = view.roster.member(view.me);
    let member = member.ok_or_else(|| {
        let cure = "join it again with `farhelm join LINK`";
        Trouble::new(
            Code::Revoked,
            "this machine was removed from the fleet",
            cure,
        )
    })?;
    let is_over = member.grant.until.is_some_and(|until| now() > until);
    if is_over {
        let cure = "let it be admitted again by the host's owner";
        return Err(Trouble::new(
            Code::Forbidden,
            "this machine's grant is over",
            cure,
        ));
    }
    Ok(format!("this machine is {} there", visible(&member.name)))
}

fn way(seen: &Seen) -> Result<String, Trouble> {
    let look_there = "look at the host with `farhelm doctor` there; commands wait for it meanwhile";
    match seen.reach() {
        Reach::Live => {
            let millis = seen.millis().unwrap_or_default().max(1);
            Ok(format!(
                "a message went to the host and came back within {millis} ms"
            ))
        }
        Reach::HostAway => Err(Trouble::new(
            Code::HostOffline,
            "the host is not connected to the relay",
            "wake it, or start its daemon with `farhelm up`; commands wait for it",
        )),
        Reach::Silent | Reach::Unproven => {
            Err(Trouble::new(Code::HostSilent, seen.way(), look_there))
        }
        Reach::Offline => Err(Trouble::new(
            Code::RelayUnreachable,
            "the connection to the relay was lost meanwhile",
            "try again",
        )),
    }
}

fn clock(seen: &Seen) -> Result<String, Trouble> {
    let skew = seen.skew().unwrap_or_default();
    let off = skew.unsigned_abs();
    if off <= SKEW_MILLIS {
        return Ok(format!("within {} s of this machine's", off / 1000 + 1));
    }
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let text = format!(
        "the host's clock is {} {direction} this machine's",
        duration(off / 1000)
    );
    Err(Trouble::new(
        Code::ClockSkew,
        text,
        "set the one that is wrong",
    ))
}

fn withheld(seen: &Seen) -> Result<String, Trouble> {
    match seen.withheld() {
        0 => Ok("all that the relay was handed has arrived".to_owned()),
        missing => Err(Trouble::new(
            Code::Withheld,
            format!("{missing} events that the relay was handed have not arrived"),
            "ask who runs the relay, or use one of your own",
        )),
    }
}
