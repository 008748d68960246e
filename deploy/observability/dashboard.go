package observability

import (
	"encoding/json"
	"strings"
)

// A panel shows queries; a row is a heading with its panels. One unit for a panel.
type panel struct {
	title, unit string
	queries     []query
}

type query struct{ expr, legend string }

type row struct {
	title  string
	panels []panel
}

// sums is the rate of a counter over all replicas by a label.
func sums(metric, by string) query {
	return query{"sum by (" + by + ") (rate(" + metric + `{job="$job"}[$__rate_interval]))`, "{{" + strings.ReplaceAll(by, ", ", "}} {{") + "}}"}
}

// quantiles are the median and the tail of a histogram, by a label or none.
func quantiles(metric string, by ...string) []query {
	labels := append([]string{"le"}, by...)
	var all []query
	for _, q := range []struct{ share, legend string }{{"0.5", "p50"}, {"0.99", "p99"}} {
		legend := q.legend
		if len(by) > 0 {
			legend += " {{" + strings.Join(by, "}} {{") + "}}"
		}
		all = append(all, query{"histogram_quantile(" + q.share + ", sum by (" + strings.Join(labels, ", ") + ") (rate(" + metric + `_bucket{job="$job"}[$__rate_interval])))`, legend})
	}
	return all
}

// seen is a gauge of which every replica sees the whole.
func seen(metric, by string) query {
	if by == "" {
		return query{"max(" + metric + `{job="$job"})`, metric}
	}
	return query{"max by (" + by + ") (" + metric + `{job="$job"})`, "{{" + by + "}}"}
}

// led is a gauge that only the leader's value of counts.
func led(metric, by string) query {
	return query{"max by (" + by + ") (" + metric + `{job="$job"} and on (job, instance) wallcrawler_leader{job="$job"} == 1)`, "{{" + by + "}}"}
}

func rows() []row {
	objectives := panel{"Budget burnt, in multiples of the even rate (1h)", "none", nil}
	for _, o := range Objectives() {
		objectives.queries = append(objectives.queries, query{
			`wallcrawler:slo_errors:ratio_rate1h{job="$job",slo="` + o.Name + `"} / ` + jsonNumber(1-o.Target), o.Name + ": " + o.Title})
	}
	one := func(title, unit string, queries ...query) panel { return panel{title, unit, queries} }
	return []row{
		{"Promises", []panel{
			objectives,
			one("Sessions", "none", seen("wallcrawler_sessions", "phase")),
			one("Slots", "none", seen("wallcrawler_slots", "state")),
			one("Clients by replica", "none", query{`sum by (instance) (wallcrawler_relay_connections{job="$job"})`, "{{instance}}"}),
			one("Replicas by version, and leaders", "none", query{`count by (version) (wallcrawler_build_info{job="$job"})`, "{{version}}"},
				query{`sum(wallcrawler_leader{job="$job"})`, "leaders"}),
		}},
		{"A session's way", []panel{
			one("Waiting for a container", "none", seen("wallcrawler_queue_depth", "")),
			one("From admission to ready", "s", quantiles("wallcrawler_session_ready_seconds", "source")...),
			one("From admission to binding", "s", quantiles("wallcrawler_queue_wait_seconds")...),
			one("From binding to ready", "s", quantiles("wallcrawler_session_start_seconds", "source")...),
			one("Answers to creations", "s", quantiles("wallcrawler_session_create_seconds", "source")...),
			one("Clients held for their session", "s", quantiles("wallcrawler_relay_hold_seconds")...),
			one("Ends by reason", "ops", sums("wallcrawler_session_end_total", "reason")),
		}},
		{"Clients", []panel{
			one("Bytes", "Bps", sums("wallcrawler_relay_bytes_total", "direction")),
			one("Messages", "ops", sums("wallcrawler_relay_messages_total", "direction")),
			one("Closed by", "ops", sums("wallcrawler_relay_closed_total", "by")),
			one("Close codes", "ops", sums("wallcrawler_relay_close_codes_total", "code")),
			one("Refused", "ops", sums("wallcrawler_relay_refused_total", "reason")),
			one("How long connections were open", "s", quantiles("wallcrawler_relay_connection_seconds")...),
			one("Passed on to other replicas", "ops", sums("wallcrawler_peer_tunnels_total", "result")),
		}},
		{"API", []panel{
			one("Requests", "ops", sums("wallcrawler_api_requests_total", "route, code")),
			one("Time to answer", "s", quantiles("wallcrawler_api_request_seconds", "route")...),
			one("Panics, shed connections", "none", query{`sum(increase(wallcrawler_api_panics_total{job="$job"}[$__rate_interval]))`, "panics"},
				query{`sum(increase(wallcrawler_api_shed_connections_total{job="$job"}[$__rate_interval]))`, "shed"}),
			one("Session tokens", "ops", sums("wallcrawler_auth_tokens_total", "kind, result")),
			one("Readings of secrets", "ops", sums("wallcrawler_auth_secret_reads_total", "secret, result")),
			one("Age of secrets as read", "s", query{`time() - min by (secret) (wallcrawler_auth_secret_read_timestamp_seconds{job="$job"})`, "{{secret}}"}),
		}},
		{"Controller", []panel{
			one("Demand", "none", led("wallcrawler_demand", "of")),
			one("Held back", "none", led("wallcrawler_holds", "kind")),
			one("Actions", "ops", sums("wallcrawler_actions_total", "kind, result")),
			one("Rounds", "ops", sums("wallcrawler_reconcile_rounds_total", "result")),
			one("Time of a round", "s", quantiles("wallcrawler_reconcile_seconds")...),
			one("Events for people", "ops", sums("wallcrawler_events_total", "reason")),
			one("Changes of pool:desired", "ops", sums("wallcrawler_pool_desired_total", "result")),
		}},
		{"Containers", []panel{
			one("Containers", "none", seen("wallcrawler_containers", "phase")),
			one("Tasks", "none", led("wallcrawler_tasks", "state")),
			one("Launches", "none", led("wallcrawler_launches", "outcome")),
			one("Failed launches of ten minutes", "none", led("wallcrawler_launches_failed", "cause")),
			one("Launches held back", "none", query{`max(wallcrawler_launch_drought{job="$job"})`, "no room in ECS"},
				query{`max(wallcrawler_launch_circuit_open{job="$job"})`, "circuit open"}),
			one("Start deadline, as learnt", "s", query{`max(wallcrawler_start_deadline_seconds{job="$job"})`, "deadline"}),
			one("Registrations", "ops", sums("wallcrawler_registrations_total", "result")),
			one("Links", "none", query{`sum by (state) (wallcrawler_links{job="$job"})`, "{{state}}"}),
			one("Silent ones asked for by other replicas", "ops", sums("wallcrawler_silent_asked_total", "result")),
			one("Taken over from other replicas", "ops", sums("wallcrawler_link_claims_total", "result")),
		}},
		{"ECS and Redis", []panel{
			one("Calls of ECS", "ops", sums("wallcrawler_ecs_calls_total", "op, result")),
			one("Time of ECS's answers", "s", quantiles("wallcrawler_ecs_call_seconds", "op")...),
			one("Calls that ECS's rates allow", "ops", led("wallcrawler_ecs_budget_per_second", "call")),
			one("Calls that wait for that", "none", led("wallcrawler_ecs_budget_waiting", "call")),
			one("Writes to Redis", "ops", sums("wallcrawler_store_writes_total", "script, result")),
			one("Time of writes", "s", quantiles("wallcrawler_store_write_seconds")...),
			one("Age of the view", "s", query{`max by (instance) (wallcrawler_view_age_seconds{job="$job"})`, "{{instance}}"},
				query{`max(wallcrawler_store_age_seconds{job="$job"} and on (job, instance) wallcrawler_leader{job="$job"} == 1)`, "at the last plan"}),
			one("Shown to others", "ops", sums("wallcrawler_projections_total", "of, result")),
		}},
		{"v1 containers", []panel{
			one("Clients", "none", query{`sum(wallcrawler_v1_clients{job="$job"})`, "clients"}),
			one("Bytes", "Bps", sums("wallcrawler_v1_bytes_total", "direction")),
			one("Messages", "ops", sums("wallcrawler_v1_messages_total", "direction")),
			one("Dropped, ignored, mute", "ops",
				query{sums("wallcrawler_v1_dropped_total", "reason").expr, "dropped: {{reason}}"},
				query{sums("wallcrawler_v1_ignored_total", "reason").expr, "ignored: {{reason}}"},
				query{`sum(rate(wallcrawler_v1_mute_total{job="$job"}[$__rate_interval]))`, "mute"}),
		}},
		{"Processes", []panel{
			one("Memory", "bytes", query{`process_resident_memory_bytes{job="$job"}`, "{{instance}}"},
				query{`wallcrawler_process_memory_limit_bytes{job="$job"}`, "limit of {{instance}}"}),
			one("CPU", "none", query{`rate(process_cpu_seconds_total{job="$job"}[$__rate_interval])`, "{{instance}}"}),
			one("Open files", "none", query{`process_open_fds{job="$job"}`, "{{instance}}"}),
			one("Goroutines", "none", query{`go_goroutines{job="$job"}`, "{{instance}}"}),
		}},
	}
}

func jsonNumber(f float64) string {
	text, _ := json.Marshal(float64(int(f*1e6+0.5)) / 1e6) // a finite number
	return string(text)
}

// Queries are all expressions of the dashboard.
func Queries() []string {
	var all []string
	for _, r := range rows() {
		for _, p := range r.panels {
			for _, q := range p.queries {
				all = append(all, q.expr)
			}
		}
	}
	return all
}

// Dashboard is dashboard.json, for Grafana 10 and later.
func Dashboard() string {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	id, y := 0, 0
	for _, r := range rows() {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"h": 1, "w": 24, "x": 0, "y": y}})
		y++
		for i, p := range r.panels {
			id++
			var targets []object
			for j, q := range p.queries {
				targets = append(targets, object{"refId": string(rune('A' + j)), "expr": q.expr, "legendFormat": q.legend, "datasource": source})
			}
			panels = append(panels, object{"id": id, "type": "timeseries", "title": p.title, "datasource": source, "targets": targets,
				"gridPos":     object{"h": 8, "w": 8, "x": 8 * (i % 3), "y": y + 8*(i/3)},
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0, "custom": object{"fillOpacity": 10, "showPoints": "never"}}, "overrides": []object{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}}})
		}
		y += 8 * ((len(r.panels) + 2) / 3)
	}
	text, err := json.MarshalIndent(object{
		"uid": "wallcrawler", "title": "WallCrawler", "tags": []string{"wallcrawler"}, "schemaVersion": 39, "editable": true,
		"refresh": "30s", "time": object{"from": "now-3h", "to": "now"}, "timezone": "browser", "panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
			{"name": "job", "type": "query", "label": "Job", "datasource": source, "refresh": 2,
				"query": object{"query": "label_values(wallcrawler_build_info, job)", "refId": "job"}, "definition": "label_values(wallcrawler_build_info, job)"},
		}},
	}, "", "  ")
	if err != nil {
		panic(err) // it is made of maps, slices and texts
	}
	return string(text) + "\n"
}
