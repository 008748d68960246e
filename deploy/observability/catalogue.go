// Package observability has what watches the service from outside: the catalogue of its
// metrics, recording and alert rules, and a dashboard. The files beside it, and those of
// charts/ and docs/ that repeat them, are written from here by go generate.
package observability

import (
	"fmt"
	"strings"
)

//go:generate go run ./generate ../..

// Metric is a metric of the service as a scrape shows it.
type Metric struct {
	Name   string
	Type   string // counter, gauge or histogram
	Labels []string
	Help   string
}

// Catalogue has every metric of the service. Go's own (go_…, process_…) are not in it.
func Catalogue() []Metric {
	return []Metric{
		{"wallcrawler_actions_total", "counter", []string{"kind", "result"}, "Actions carried out, by kind and result."},
		{"wallcrawler_api_panics_total", "counter", []string{}, "Requests whose handler panicked."},
		{"wallcrawler_api_request_seconds", "histogram", []string{"route"}, "Time to answer, without upgraded connections."},
		{"wallcrawler_api_requests_total", "counter", []string{"code", "route"}, "Requests by route and class of status."},
		{"wallcrawler_api_shed_connections_total", "counter", []string{}, "Connections closed at once because open files were running out."},
		{"wallcrawler_auth_secret_read_timestamp_seconds", "gauge", []string{"secret"}, "When a secret that may change was last read well."},
		{"wallcrawler_auth_secret_reads_total", "counter", []string{"result", "secret"}, "Readings of a secret that may change, by secret and result; after an error the last good one is kept."},
		{"wallcrawler_auth_tokens_total", "counter", []string{"kind", "result"}, "Session tokens checked, by kind and result."},
		{"wallcrawler_build_info", "gauge", []string{"version"}, "1, labelled with the version."},
		{"wallcrawler_containers", "gauge", []string{"phase"}, "Containers by phase."},
		{"wallcrawler_demand", "gauge", []string{"of"}, "The arithmetic behind the last plan, in slots, and in containers for launch and surplus."},
		{"wallcrawler_ecs_budget_per_second", "gauge", []string{"call"}, "Calls a second that are allowed now: half of what AWS publishes, less after throttling."},
		{"wallcrawler_ecs_budget_waiting", "gauge", []string{"call"}, "Calls that the last round left waiting for the account's allowance."},
		{"wallcrawler_ecs_call_seconds", "histogram", []string{"op"}, "Duration of calls of the ECS API, each with its retries."},
		{"wallcrawler_ecs_calls_total", "counter", []string{"op", "result"}, "Calls of the ECS API by operation and result, each with its retries."},
		{"wallcrawler_events_total", "counter", []string{"reason"}, "Events noted for people, by reason."},
		{"wallcrawler_holds", "gauge", []string{"kind"}, "Things held back by the last plan, by kind."},
		{"wallcrawler_launch_circuit_open", "gauge", []string{}, "1 while launches go wrong one after the other and only one is tried now and then."},
		{"wallcrawler_launch_drought", "gauge", []string{}, "1 while ECS has no room for containers."},
		{"wallcrawler_launches", "gauge", []string{"outcome"}, "Recorded launches, by outcome."},
		{"wallcrawler_launches_failed", "gauge", []string{"cause"}, "Launches of the last ten minutes that failed, by cause."},
		{"wallcrawler_leader", "gauge", []string{}, "1 on the replica that leads."},
		{"wallcrawler_link_claims_total", "counter", []string{"result"}, "Attempts to take a container over from another replica, by result."},
		{"wallcrawler_links", "gauge", []string{"state"}, "Containers that this replica owns, by the state of their link."},
		{"wallcrawler_peer_tunnels_total", "counter", []string{"result"}, "Clients passed on to the replica that holds their container's link, by result."},
		{"wallcrawler_pool_desired_total", "counter", []string{"result"}, "Changes of pool:desired, by what became of them."},
		{"wallcrawler_process_memory_limit_bytes", "gauge", []string{"source"}, "Soft limit of this process's memory, by where it comes from."},
		{"wallcrawler_projections_total", "counter", []string{"of", "result"}, "Attempts to show others what was learnt of sessions and containers, by what and result."},
		{"wallcrawler_queue_depth", "gauge", []string{}, "Sessions that wait for a container."},
		{"wallcrawler_queue_wait_seconds", "histogram", []string{}, "From admission of a session to its binding."},
		{"wallcrawler_reconcile_rounds_total", "counter", []string{"result"}, "Rounds, by how they ended."},
		{"wallcrawler_reconcile_seconds", "histogram", []string{}, "Time of one round of observing, planning and acting."},
		{"wallcrawler_registrations_total", "counter", []string{"result"}, "Registrations of containers by result."},
		{"wallcrawler_relay_bytes_total", "counter", []string{"direction"}, "Bytes relayed, by where they went."},
		{"wallcrawler_relay_close_codes_total", "counter", []string{"code"}, "Relayed connections that have ended, by the code of the close frame that came first; none: there was none."},
		{"wallcrawler_relay_closed_total", "counter", []string{"by"}, "Relayed connections that have ended, by who ended them."},
		{"wallcrawler_relay_connection_seconds", "histogram", []string{}, "How long relayed connections were open."},
		{"wallcrawler_relay_connections", "gauge", []string{}, "Clients joined to a browser now."},
		{"wallcrawler_relay_hold_seconds", "histogram", []string{}, "Time that requests waited for their session to become ready."},
		{"wallcrawler_relay_messages_total", "counter", []string{"direction"}, "WebSocket messages relayed, by where they went."},
		{"wallcrawler_relay_refused_total", "counter", []string{"reason"}, "Requests for a session that were refused before an upgrade, by reason."},
		{"wallcrawler_session_create_seconds", "histogram", []string{"source"}, "Time to answer a creation, by where the browser came from."},
		{"wallcrawler_session_end_total", "counter", []string{"reason"}, "Sessions ended, by reason."},
		{"wallcrawler_session_ready_seconds", "histogram", []string{"source"}, "From admission of a session until its browser was ready, by where the browser came from; observed once a session, by the owner of its container."},
		{"wallcrawler_session_start_seconds", "histogram", []string{"source"}, "Time from CREATE_SESSION to SESSION_READY, by where the browser came from."},
		{"wallcrawler_sessions", "gauge", []string{"phase"}, "Sessions by phase, ended ones for five minutes."},
		{"wallcrawler_silent_asked_total", "counter", []string{"result"}, "Questions to containers that do not report, by whether they answered, or could not be asked for want of a socket."},
		{"wallcrawler_slots", "gauge", []string{"state"}, "Slots of containers that are not gone; free ones only where they can be had."},
		{"wallcrawler_start_deadline_seconds", "gauge", []string{}, "Time from a launch to its registration that is allowed, as learnt."},
		{"wallcrawler_store_age_seconds", "gauge", []string{}, "Age of the leader's view of the store at the last plan."},
		{"wallcrawler_store_write_seconds", "histogram", []string{"script"}, "Time from sending a script to its answer."},
		{"wallcrawler_store_writes_total", "counter", []string{"result", "script"}, "Writes to the control records by script and result."},
		{"wallcrawler_tasks", "gauge", []string{"state"}, "ECS tasks of this deployment, by state."},
		{"wallcrawler_v1_bytes_total", "counter", []string{"direction"}, "Bytes of messages of v1 sessions, by where they went."},
		{"wallcrawler_v1_clients", "gauge", []string{}, "Clients attached to sessions of v1 containers now."},
		{"wallcrawler_v1_dropped_total", "counter", []string{"reason"}, "Messages of v1 containers that went to no client, by reason."},
		{"wallcrawler_v1_ignored_total", "counter", []string{"reason"}, "Messages of clients of v1 sessions that were ignored, by reason."},
		{"wallcrawler_v1_messages_total", "counter", []string{"direction"}, "Messages of v1 sessions, by where they went."},
		{"wallcrawler_v1_mute_total", "counter", []string{}, "Links to v1 containers that were closed because the container had lost its voice."},
		{"wallcrawler_view_age_seconds", "gauge", []string{}, "Time since the store was last read."},
	}
}

// Page is docs/metrics.md.
func Page() string {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Written by ` + "`make docs`" + ` from deploy/observability/catalogue.go: change it there. -->

At ` + "`/metrics`" + `, for Prometheus, beside Go's own. Labels are of closed sets; no ids, no users. Gauges that count sessions, containers and
slots are every replica's view of the whole, so take their ` + "`max`" + `; those of the plan (` + "`demand`, `holds`, `tasks`, `launches`" + `) mean
something on the leader only: multiply by ` + "`wallcrawler_leader`" + `. The rest is of one replica: ` + "`sum`" + ` it.

| metric | type | labels | what it says |
|---|---|---|---|
`)
	for _, m := range Catalogue() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, m.Help)
	}
	b.WriteString(`
[The rules](../deploy/observability/rules.yaml) record and alert on them, [the dashboard](../deploy/observability/dashboard.json) shows them
([how to use both](../deploy/observability/README.md)), and [the runbook](runbook.md) says what to do when an alert comes.
`)
	return b.String()
}
