package observability

import (
	"fmt"
	"strconv"
	"strings"
)

// Rule is a recording rule (Record) or an alert (Alert).
type Rule struct {
	Record, Alert string
	Expr          string
	For           string
	Labels        map[string]string // severity: page or ticket, and what is asked for by name
	Summary       string            // of an alert
	Description   string
}

// Group is a group of rules, which Prometheus evaluates one after another.
type Group struct {
	Name  string
	Rules []Rule
}

// An Objective is a promise in numbers, kept over 30 days.
type Objective struct {
	Name   string
	Target float64 // share of good events
	Title  string
	// Bad and Total are sums of rates, with %[1]s where the window stands.
	Bad, Total string
}

// Objectives are the service's.
func Objectives() []Objective {
	return []Objective{
		// Prometheus 3 writes a whole bound as a float: 5.0.
		{"start", 0.99, "sessions have a browser that answers within 5 s",
			`(sum by (job) (rate(wallcrawler_session_ready_seconds_count[%[1]s])) - sum by (job) (rate(wallcrawler_session_ready_seconds_bucket{le=~"5|5.0"}[%[1]s])) + sum by (job) (rate(wallcrawler_session_end_total{reason="failed"}[%[1]s])))`,
			`(sum by (job) (rate(wallcrawler_session_ready_seconds_count[%[1]s])) + sum by (job) (rate(wallcrawler_session_end_total{reason="failed"}[%[1]s])))`},
		{"availability", 0.999, "requests are answered, not failed by us",
			`(sum by (job) (rate(wallcrawler_api_requests_total{code="5xx"}[%[1]s])) or 0 * sum by (job) (rate(wallcrawler_api_requests_total[%[1]s])))`,
			`sum by (job) (rate(wallcrawler_api_requests_total[%[1]s]))`},
		{"lost", 0.995, "sessions end because somebody wanted it, or their time was over",
			`sum by (job) (rate(wallcrawler_session_end_total{reason=~"browser_crashed|container_lost|stopped_externally"}[%[1]s]))`,
			`sum by (job) (rate(wallcrawler_session_end_total[%[1]s]))`},
	}
}

// burn is one speed of using up the budget of 30 days, seen in a long and in a short window:
// the long one says that it matters, the short one that it goes on.
type burn struct {
	long, short string
	factor      float64
	wait        string
	severity    string
	spent       string
}

func burns() []burn {
	return []burn{
		{"1h", "5m", 14.4, "2m", "page", "2 % of the month's budget in an hour"},
		{"6h", "30m", 6, "15m", "page", "5 % of the month's budget in six hours"},
		{"1d", "2h", 3, "1h", "ticket", "10 % of the month's budget in a day"},
		{"3d", "6h", 1, "3h", "ticket", "the month's budget within the month"},
	}
}

func windows() []string { return []string{"5m", "30m", "1h", "2h", "6h", "1d", "3d"} }

// Groups are all rules.
func Groups() []Group {
	objectives := Group{Name: "wallcrawler-objectives"}
	burning := Group{Name: "wallcrawler-objectives-alerts"}
	for _, o := range Objectives() {
		for _, w := range windows() {
			objectives.Rules = append(objectives.Rules, Rule{Record: "wallcrawler:slo_errors:ratio_rate" + w,
				Expr: fmt.Sprintf(o.Bad+" / "+o.Total, w), Labels: map[string]string{"slo": o.Name}})
		}
		name := "Wallcrawler" + strings.ToUpper(o.Name[:1]) + o.Name[1:] + "Burns"
		for _, b := range burns() {
			limit := strconv.FormatFloat(b.factor*(1-o.Target), 'g', 6, 64)
			burning.Rules = append(burning.Rules, Rule{Alert: name, For: b.wait,
				Expr: fmt.Sprintf(`wallcrawler:slo_errors:ratio_rate%s{slo="%s"} > %s and wallcrawler:slo_errors:ratio_rate%s{slo="%s"} > %s`,
					b.long, o.Name, limit, b.short, o.Name, limit),
				Labels:  map[string]string{"severity": b.severity, "slo": o.Name, "window": b.long},
				Summary: "The objective \"" + o.Title + "\" is being missed",
				Description: fmt.Sprintf("The objective is that %s %% of %s. At this rate, it uses up %s (now {{ $value | humanizePercentage }} bad).",
					strconv.FormatFloat(100*o.Target, 'g', 6, 64), o.Title, b.spent)})
		}
	}
	return []Group{
		objectives, burning,
		{Name: "wallcrawler-recordings", Rules: []Rule{
			{Record: "wallcrawler:sessions:max", Expr: `max by (job, phase) (wallcrawler_sessions)`},
			{Record: "wallcrawler:clients:sum", Expr: `sum by (job) (wallcrawler_relay_connections)`},
			{Record: "wallcrawler:slots:max", Expr: `max by (job, state) (wallcrawler_slots)`},
			{Record: "wallcrawler:queue_wait_seconds:p99_5m", Expr: `histogram_quantile(0.99, sum by (job, le) (rate(wallcrawler_queue_wait_seconds_bucket[5m])))`},
			{Record: "wallcrawler:session_ready_seconds:p99_5m", Expr: `histogram_quantile(0.99, sum by (job, le) (rate(wallcrawler_session_ready_seconds_bucket[5m])))`},
			{Record: "wallcrawler:session_create_seconds:p99_5m", Expr: `histogram_quantile(0.99, sum by (job, le) (rate(wallcrawler_session_create_seconds_bucket[5m])))`},
		}},
		{Name: "wallcrawler-alerts", Rules: causes()},
	}
}

// causes are alerts on what is wrong inside. Few page: a cause that hurts nobody yet can wait.
func causes() []Rule {
	page, ticket := map[string]string{"severity": "page"}, map[string]string{"severity": "ticket"}
	return []Rule{
		{Alert: "WallcrawlerAbsent", For: "2m", Labels: page, Expr: `absent(wallcrawler_build_info)`,
			Summary: "No replica is seen at all", Description: "No replica has been scraped for 2 minutes: the service is down, or Prometheus does not find it."},
		{Alert: "WallcrawlerReplicaDown", For: "5m", Labels: ticket, Expr: `up{job="wallcrawler"} == 0`,
			Summary: "A replica cannot be scraped", Description: "{{ $labels.instance }} has not answered for 5 minutes."},
		{Alert: "WallcrawlerNoLeader", For: "1m", Labels: page, Expr: `sum by (job) (wallcrawler_leader) == 0`,
			Summary: "No replica leads", Description: "Nothing is bound, launched or stopped; clients that are joined stay so."},
		{Alert: "WallcrawlerTwoLeaders", For: "1m", Labels: ticket, Expr: `sum by (job) (wallcrawler_leader) > 1`,
			Summary: "More than one replica believes that it leads", Description: "{{ $value }} replicas do. The store refuses the older one's writes; ECS calls may be made twice."},
		{Alert: "WallcrawlerViewStale", For: "1m", Labels: page, Expr: `wallcrawler_view_age_seconds > 30`,
			Summary: "A replica does not see the store", Description: "{{ $labels.instance }} last read Redis {{ $value | humanizeDuration }} ago. Nothing new is bound; joined clients go on."},
		{Alert: "WallcrawlerStoreFails", For: "5m", Labels: page,
			Expr:    `sum by (job) (rate(wallcrawler_store_writes_total{result="error"}[5m])) / sum by (job) (rate(wallcrawler_store_writes_total[5m])) > 0.05`,
			Summary: "Writes to Redis fail", Description: "{{ $value | humanizePercentage }} of the writes of 5 minutes have failed."},
		{Alert: "WallcrawlerStoreSlow", For: "10m", Labels: ticket,
			Expr:    `histogram_quantile(0.99, sum by (job, le) (rate(wallcrawler_store_write_seconds_bucket[5m]))) > 0.25`,
			Summary: "Writes to Redis are slow", Description: "One in a hundred takes {{ $value | humanizeDuration }} or more."},
		{Alert: "WallcrawlerLoopStands", For: "2m", Labels: page,
			Expr:    `sum by (job) (rate(wallcrawler_reconcile_rounds_total{result="done"}[5m])) == 0 and sum by (job) (wallcrawler_leader) > 0`,
			Summary: "The leader's loop completes no round", Description: "A replica leads, and has completed no round for 5 minutes."},
		{Alert: "WallcrawlerActionsFail", For: "10m", Labels: ticket,
			Expr:    `sum by (job, kind) (rate(wallcrawler_actions_total{result="failed"}[10m])) / sum by (job, kind) (rate(wallcrawler_actions_total[10m])) > 0.1`,
			Summary: "Actions of the controller fail", Description: "{{ $value | humanizePercentage }} of the actions {{ $labels.kind }} fail."},
		{Alert: "WallcrawlerSessionsWait", For: "3m", Labels: page, Expr: `max by (job) (wallcrawler_queue_depth) > 0`,
			Summary: "Sessions wait for a container", Description: "The queue, now {{ $value }} long, has not been empty for 3 minutes."},
		{Alert: "WallcrawlerNoRoomInECS", For: "10m", Labels: ticket,
			Expr:    `sum by (job) (increase(wallcrawler_ecs_calls_total{op="RunTask",result="refused"}[10m])) > 0`,
			Summary: "ECS has no room for tasks", Description: "RunTask was answered without a task {{ $value | humanize }} times in 10 minutes."},
		{Alert: "WallcrawlerECSFails", For: "5m", Labels: ticket,
			Expr:    `sum by (job, op) (rate(wallcrawler_ecs_calls_total{result="error"}[5m])) / sum by (job, op) (rate(wallcrawler_ecs_calls_total[5m])) > 0.2`,
			Summary: "Calls of ECS fail", Description: "{{ $value | humanizePercentage }} of the calls of {{ $labels.op }} fail."},
		{Alert: "WallcrawlerECSThrottles", For: "15m", Labels: ticket,
			Expr:    `sum by (job, op) (rate(wallcrawler_ecs_calls_total{result="throttled"}[5m])) > 0`,
			Summary: "ECS throttles", Description: "{{ $labels.op }} is throttled, beyond what retries make good."},
		{Alert: "WallcrawlerHoldsBack", For: "15m", Labels: ticket,
			Expr:    `max by (job, kind) (wallcrawler_holds and on (job, instance) wallcrawler_leader == 1) > 0`,
			Summary: "The controller holds something back", Description: "{{ $value }} of kind {{ $labels.kind }} have been held for 15 minutes."},
		{Alert: "WallcrawlerLaunchesExpire", For: "0m", Labels: ticket,
			Expr:    `max by (job) (wallcrawler_launches{outcome="expired"} and on (job, instance) wallcrawler_leader == 1) > 2`,
			Summary: "Containers start and never register", Description: "{{ $value }} launches were not registered by their start deadline."},
		{Alert: "WallcrawlerLaunchesStopped", For: "1m", Labels: page, Expr: `max by (job) (wallcrawler_launch_circuit_open and on (job, instance) wallcrawler_leader == 1) == 1`,
			Summary: "Launches go wrong one after the other", Description: "Three starts in a row have failed; only one is tried now and then, until one succeeds."},
		{Alert: "WallcrawlerRegistrationsRefused", For: "10m", Labels: ticket,
			Expr:    `sum by (job, result) (rate(wallcrawler_registrations_total{result!="registered"}[10m])) > 0`,
			Summary: "Containers are refused", Description: "Registrations are answered with {{ $labels.result }}."},
		{Alert: "WallcrawlerLinksLost", For: "5m", Labels: ticket, Expr: `sum by (job) (wallcrawler_links{state="lost"}) > 0`,
			Summary: "Containers cannot be reached", Description: "{{ $value }} links to containers have been lost for 5 minutes."},
		{Alert: "WallcrawlerContainersMute", For: "0m", Labels: ticket, Expr: `sum by (job) (increase(wallcrawler_v1_mute_total[30m])) > 2`,
			Summary: "v1 containers lose their voice", Description: "{{ $value | humanize }} links were closed in 30 minutes because their container answered pings only."},
		{Alert: "WallcrawlerContainersHang", For: "0m", Labels: ticket, Expr: `sum by (job) (increase(wallcrawler_actions_total{kind="give_up",result="done"}[30m])) > 0`,
			Summary: "Containers hang", Description: "{{ $value | humanize }} containers were given up in 30 minutes because they answered nobody; their sessions are lost."},
		{Alert: "WallcrawlerFull", For: "2m", Labels: page, Expr: `sum by (job) (rate(wallcrawler_relay_refused_total{reason="full"}[2m])) > 0`,
			Summary: "Replicas take no more clients", Description: "Clients are refused because a replica, or a user, is at its limit."},
		{Alert: "WallcrawlerSheds", For: "0m", Labels: page, Expr: `sum by (job, instance) (increase(wallcrawler_api_shed_connections_total[5m])) > 0`,
			Summary: "A replica runs out of open files", Description: "{{ $labels.instance }} has closed {{ $value | humanize }} connections at once."},
		{Alert: "WallcrawlerClientsStall", For: "10m", Labels: ticket,
			Expr:    `sum by (job) (rate(wallcrawler_relay_closed_total{by="stalled"}[10m])) / sum by (job) (rate(wallcrawler_relay_closed_total[10m])) > 0.05`,
			Summary: "Clients take nothing and are closed", Description: "{{ $value | humanizePercentage }} of the connections that end were closed for that (1013)."},
		{Alert: "WallcrawlerRelayFaults", For: "0m", Labels: ticket, Expr: `sum by (job) (increase(wallcrawler_relay_closed_total{by="fault"}[15m])) > 0`,
			Summary: "The relay has faults", Description: "{{ $value | humanize }} connections have ended by a fault of the service."},
		{Alert: "WallcrawlerPeersUnreachable", For: "5m", Labels: ticket, Expr: `sum by (job) (rate(wallcrawler_peer_tunnels_total{result="failed"}[5m])) > 0`,
			Summary: "Replicas do not reach one another", Description: "Clients whose container's link is at another replica are not passed on."},
		{Alert: "WallcrawlerPanics", For: "0m", Labels: ticket, Expr: `sum by (job) (increase(wallcrawler_api_panics_total[15m])) > 0`,
			Summary: "A request made the service panic", Description: "{{ $value | humanize }} requests in 15 minutes; the log has the stack."},
		{Alert: "WallcrawlerSecretStale", For: "0m", Labels: ticket,
			Expr:    `sum by (job, secret) (increase(wallcrawler_auth_secret_reads_total{result="error"}[1h])) > 3`,
			Summary: "A secret cannot be read again", Description: "{{ $labels.secret }} could not be read {{ $value | humanize }} times in an hour; the last good one is in use."},
		{Alert: "WallcrawlerTokensRefused", For: "10m", Labels: ticket,
			Expr:    `sum by (job) (rate(wallcrawler_auth_tokens_total{result="refused"}[10m])) > sum by (job) (rate(wallcrawler_auth_tokens_total{result="good"}[10m])) and sum by (job) (rate(wallcrawler_auth_tokens_total{result="refused"}[10m])) > 0.1`,
			Summary: "Most session tokens are refused", Description: "Somebody makes tokens with another secret, or tries some."},
		{Alert: "WallcrawlerVersionsMixed", For: "1h", Labels: ticket, Expr: `count by (job) (count by (job, version) (wallcrawler_build_info)) > 1`,
			Summary: "Replicas of several versions run", Description: "{{ $value }} versions have run together for an hour: an upgrade has stopped half-way."},
	}
}

// Runbook is where an alert is explained.
func Runbook(alert string) string {
	return "https://github.com/wallcrawler/wallcrawler/blob/main/docs/runbook.md#" + strings.ToLower(alert)
}

// RulesFile is rules.yaml.
func RulesFile() string {
	var b strings.Builder
	b.WriteString("# Written by `make docs` from deploy/observability/rules.go: change it there.\ngroups:\n")
	for _, g := range Groups() {
		fmt.Fprintf(&b, "  - name: %s\n    rules:\n", g.Name)
		for _, r := range g.Rules {
			if r.Record != "" {
				fmt.Fprintf(&b, "      - record: %s\n        expr: %s\n", r.Record, quote(r.Expr))
			} else {
				fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n        for: %s\n", r.Alert, quote(r.Expr), r.For)
			}
			if len(r.Labels) > 0 {
				b.WriteString("        labels:\n")
				for _, name := range []string{"severity", "slo", "window"} {
					if v := r.Labels[name]; v != "" {
						fmt.Fprintf(&b, "          %s: %s\n", name, quote(v))
					}
				}
			}
			if r.Alert != "" {
				fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          description: %s\n          runbook_url: %s\n",
					quote(r.Summary), quote(r.Description), quote(Runbook(r.Alert)))
			}
		}
	}
	return b.String()
}

// quote writes a YAML string on one line.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
