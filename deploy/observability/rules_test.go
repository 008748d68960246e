package observability

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// promtool finds Prometheus' tool.
func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v: `make test` installs it on Debian (package prometheus); elsewhere get it from prometheus.io", err)
	}
	return path
}

// history is the input of a case: series and their values, a sample each minute.
type history map[string]string

// Values over 4 hours.
func steady(v float64) string  { return fmt.Sprintf("%g+0x240", v) }
func growing(v float64) string { return fmt.Sprintf("0+%gx240", v) } // by v a minute

type ruleCase struct {
	alert  string
	says   string
	labels string // more of the alert
	given  history
	at     string // empty: 30m
	fires  bool
}

const (
	one = `job="wallcrawler",instance="a"`
	two = `job="wallcrawler",instance="b"`
)

func causeCases() []ruleCase {
	pair := func(alert string, bad, good history) []ruleCase {
		return []ruleCase{{alert: alert, says: "fires", given: bad, fires: true}, {alert: alert, says: "is quiet", given: good}}
	}
	// ratio is a counter of which a share is of one kind, from 100 a minute.
	ratio := func(metric, labels, bad, good string, share float64) history {
		return history{metric + "{" + one + "," + labels + bad + "}": growing(100 * share), metric + "{" + one + "," + labels + good + "}": growing(100 * (1 - share))}
	}
	// latency is a histogram of which a share is above a bound.
	latency := func(metric, bound, above string, share float64) history {
		return history{metric + "_bucket{" + one + `,le="` + bound + `"}`: growing(100 * (1 - share)), metric + "_bucket{" + one + `,le="` + above + `"}`: growing(100),
			metric + "_bucket{" + one + `,le="+Inf"}`: growing(100)}
	}
	counter := func(metric, labels string, each float64) history {
		return history{metric + "{" + one + labels + "}": growing(each)}
	}
	gauge := func(metric, labels string, v float64) history {
		return history{metric + "{" + one + labels + "}": steady(v)}
	}
	led := func(leads float64, h history) history {
		h["wallcrawler_leader{"+one+"}"] = steady(leads)
		return h
	}
	var all []ruleCase
	for _, cases := range [][]ruleCase{
		pair("WallcrawlerAbsent", history{"up{" + one + "}": steady(0)}, gauge("wallcrawler_build_info", `,version="1"`, 1)),
		pair("WallcrawlerReplicaDown", history{"up{" + one + "}": steady(1), "up{" + two + "}": steady(0)}, history{"up{" + one + "}": steady(1), `up{job="another"}`: steady(0)}),
		pair("WallcrawlerNoLeader", gauge("wallcrawler_leader", "", 0), history{"wallcrawler_leader{" + one + "}": steady(0), "wallcrawler_leader{" + two + "}": steady(1)}),
		pair("WallcrawlerTwoLeaders", history{"wallcrawler_leader{" + one + "}": steady(1), "wallcrawler_leader{" + two + "}": steady(1)}, gauge("wallcrawler_leader", "", 1)),
		pair("WallcrawlerViewStale", gauge("wallcrawler_view_age_seconds", "", 31), gauge("wallcrawler_view_age_seconds", "", 29)),
		pair("WallcrawlerStoreFails", ratio("wallcrawler_store_writes_total", `script="bind",`, `result="error"`, `result="ok"`, .06), ratio("wallcrawler_store_writes_total", `script="bind",`, `result="error"`, `result="ok"`, .04)),
		pair("WallcrawlerStoreSlow", latency("wallcrawler_store_write_seconds", "0.2187", "0.6561", .02), latency("wallcrawler_store_write_seconds", "0.2187", "0.6561", .005)),
		pair("WallcrawlerLoopStands", led(1, history{"wallcrawler_reconcile_rounds_total{" + one + `,result="done"}`: steady(9), "wallcrawler_reconcile_rounds_total{" + one + `,result="unobserved"}`: growing(1)}),
			led(1, counter("wallcrawler_reconcile_rounds_total", `,result="done"`, 1))),
		pair("WallcrawlerActionsFail", ratio("wallcrawler_actions_total", `kind="bind",`, `result="failed"`, `result="done"`, .11), ratio("wallcrawler_actions_total", `kind="bind",`, `result="failed"`, `result="done"`, .09)),
		pair("WallcrawlerSessionsWait", gauge("wallcrawler_queue_depth", "", 1), history{"wallcrawler_queue_depth{" + one + "}": "0 1 1 0 1 1 0+0x100"}),
		pair("WallcrawlerNoRoomInECS", counter("wallcrawler_ecs_calls_total", `,op="RunTask",result="refused"`, 1), counter("wallcrawler_ecs_calls_total", `,op="RunTask",result="ok"`, 1)),
		pair("WallcrawlerECSFails", ratio("wallcrawler_ecs_calls_total", `op="ListTasks",`, `result="error"`, `result="ok"`, .21), ratio("wallcrawler_ecs_calls_total", `op="ListTasks",`, `result="error"`, `result="ok"`, .19)),
		pair("WallcrawlerECSThrottles", counter("wallcrawler_ecs_calls_total", `,op="RunTask",result="throttled"`, 1), history{"wallcrawler_ecs_calls_total{" + one + `,op="RunTask",result="throttled"}`: "0 0 0 1+0x240"}),
		pair("WallcrawlerHoldsBack", led(1, gauge("wallcrawler_holds", `,kind="destruction"`, 1)), led(0, gauge("wallcrawler_holds", `,kind="destruction"`, 1))),
		pair("WallcrawlerLaunchesExpire", led(1, gauge("wallcrawler_launches", `,outcome="expired"`, 3)), led(1, gauge("wallcrawler_launches", `,outcome="expired"`, 2))),
		pair("WallcrawlerLaunchesStopped", led(1, gauge("wallcrawler_launch_circuit_open", "", 1)), led(0, gauge("wallcrawler_launch_circuit_open", "", 1))),
		pair("WallcrawlerRegistrationsRefused", counter("wallcrawler_registrations_total", `,result="unauthorized"`, 1), counter("wallcrawler_registrations_total", `,result="registered"`, 1)),
		pair("WallcrawlerLinksLost", gauge("wallcrawler_links", `,state="lost"`, 1), gauge("wallcrawler_links", `,state="open"`, 1)),
		pair("WallcrawlerContainersMute", counter("wallcrawler_v1_mute_total", "", .2), counter("wallcrawler_v1_mute_total", "", .05)),
		pair("WallcrawlerContainersHang", counter("wallcrawler_actions_total", `,kind="give_up",result="done"`, .1), counter("wallcrawler_actions_total", `,kind="give_up",result="stale"`, .1)),
		pair("WallcrawlerFull", counter("wallcrawler_relay_refused_total", `,reason="full"`, 1), counter("wallcrawler_relay_refused_total", `,reason="ended"`, 1)),
		pair("WallcrawlerSheds", counter("wallcrawler_api_shed_connections_total", "", 1), gauge("wallcrawler_api_shed_connections_total", "", 5)),
		pair("WallcrawlerClientsStall", ratio("wallcrawler_relay_closed_total", "", `by="stalled"`, `by="client"`, .06), ratio("wallcrawler_relay_closed_total", "", `by="stalled"`, `by="client"`, .04)),
		pair("WallcrawlerRelayFaults", counter("wallcrawler_relay_closed_total", `,by="fault"`, 1), counter("wallcrawler_relay_closed_total", `,by="backend"`, 1)),
		pair("WallcrawlerPeersUnreachable", counter("wallcrawler_peer_tunnels_total", `,result="failed"`, 1), counter("wallcrawler_peer_tunnels_total", `,result="refused"`, 1)),
		pair("WallcrawlerPanics", counter("wallcrawler_api_panics_total", "", 1), gauge("wallcrawler_api_panics_total", "", 1)),
		pair("WallcrawlerSecretStale", counter("wallcrawler_auth_secret_reads_total", `,secret="jwt",result="error"`, .1), counter("wallcrawler_auth_secret_reads_total", `,secret="jwt",result="error"`, .04)),
		pair("WallcrawlerTokensRefused", ratio("wallcrawler_auth_tokens_total", `kind="signed",`, `result="refused"`, `result="good"`, .6), ratio("wallcrawler_auth_tokens_total", `kind="signed",`, `result="refused"`, `result="good"`, .4)),
		pair("WallcrawlerVersionsMixed", history{"wallcrawler_build_info{" + one + `,version="1"}`: steady(1), "wallcrawler_build_info{" + two + `,version="2"}`: steady(1)},
			history{"wallcrawler_build_info{" + one + `,version="1"}`: steady(1), "wallcrawler_build_info{" + two + `,version="1"}`: steady(1)}),
	} {
		for _, c := range cases {
			switch c.alert {
			case "WallcrawlerVersionsMixed":
				c.at = "90m"
			case "WallcrawlerSecretStale", "WallcrawlerContainersMute":
				c.at = "60m"
			}
			all = append(all, c)
		}
	}
	return all
}

// burning is a world in which a share of an objective's events is bad.
func burning(slo string, values func(each float64) string, share float64) history {
	bad, good, total := values(1000*share), values(1000*(1-share)), values(1000)
	switch slo {
	case "start":
		return history{`wallcrawler_session_ready_seconds_count{` + one + `,source="cold"}`: total, `wallcrawler_session_ready_seconds_bucket{` + one + `,source="cold",le="5"}`: good,
			`wallcrawler_session_end_total{` + one + `,reason="failed"}`: values(0)}
	case "availability":
		return history{`wallcrawler_api_requests_total{` + one + `,route="/v1/sessions",code="5xx"}`: bad, `wallcrawler_api_requests_total{` + one + `,route="/v1/sessions",code="2xx"}`: good}
	default:
		return history{`wallcrawler_session_end_total{` + one + `,reason="container_lost"}`: bad, `wallcrawler_session_end_total{` + one + `,reason="released"}`: good}
	}
}

// healed grows for an hour, and stands for what is bad after that.
func healed(each float64) string { return fmt.Sprintf("0+%gx60 %g+0x60", each, 60*each) }

func burnCases() []ruleCase {
	var all []ruleCase
	for _, o := range Objectives() {
		name := "Wallcrawler" + strings.ToUpper(o.Name[:1]) + o.Name[1:] + "Burns"
		for _, b := range burns() {
			limit := b.factor * (1 - o.Target)
			labels := `,window="` + b.long + `",severity="` + b.severity + `"`
			all = append(all,
				ruleCase{name, b.long + " fires above its factor", labels, burning(o.Name, growing, 1.1*limit), "220m", true},
				ruleCase{name, b.long + " is quiet below its factor", labels, burning(o.Name, growing, .9*limit), "220m", false},
				ruleCase{name, b.long + " is quiet when nothing happens", labels, burning(o.Name, func(float64) string { return steady(0) }, 0), "220m", false})
		}
		// An hour of failures, and then only good events: the long window is still bad.
		after := burning(o.Name, growing, 0)
		for series, values := range burning(o.Name, healed, 20*(1-o.Target)) {
			if strings.Contains(series, "5xx") || strings.Contains(series, "container_lost") {
				after[series] = values
			}
		}
		if o.Name != "start" {
			all = append(all, ruleCase{name, "1h is quiet once it is over", `,window="1h"`, after, "80m", false})
		}
	}
	return append(all, ruleCase{"WallcrawlerStartBurns", "1h fires for sessions that got none", `,window="1h",severity="page"`, history{
		`wallcrawler_session_ready_seconds_count{` + one + `,source="warm"}`: growing(80), `wallcrawler_session_ready_seconds_bucket{` + one + `,source="warm",le="5.0"}`: growing(80),
		`wallcrawler_session_end_total{` + one + `,reason="failed"}`: growing(20)}, "60m", true})
}

// TestAlerts lets promtool judge each alert in a world that calls for it and in one that nearly does.
func TestAlerts(t *testing.T) {
	tool := promtool(t)
	rules, err := filepath.Abs("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(causeCases(), burnCases()...) {
		t.Run(c.alert+" "+c.says, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			at := c.at
			if at == "" {
				at = "30m"
			}
			every := "1m" // the long windows can be looked at less often
			if c.at != "" {
				every = "5m"
			}
			fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: %s\ntests:\n  - interval: 1m\n    input_series:\n", rules, every)
			for series, values := range c.given {
				fmt.Fprintf(&b, "      - {series: %s, values: %s}\n", quote(series), quote(values))
			}
			expr := fmt.Sprintf(`group by (alertname) (ALERTS{alertname="%s",alertstate="firing"%s})`, c.alert, c.labels)
			fmt.Fprintf(&b, "    promql_expr_test:\n      - expr: %s\n        eval_time: %s\n        exp_samples:", quote(expr), at)
			if c.fires {
				fmt.Fprintf(&b, "\n          - {labels: %s, value: 1}\n", quote(`{alertname="`+c.alert+`"}`))
			} else {
				b.WriteString(" []\n")
			}
			file := filepath.Join(t.TempDir(), "test.yaml")
			if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), tool, "test", "rules", file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, b.String())
			}
		})
	}
}

func TestEachAlertIsTested(t *testing.T) {
	seen := map[string][2]bool{}
	for _, c := range append(causeCases(), burnCases()...) {
		s := seen[c.alert]
		if c.fires {
			s[0] = true
		} else {
			s[1] = true
		}
		seen[c.alert] = s
	}
	for _, g := range Groups() {
		for _, r := range g.Rules {
			if r.Alert != "" && seen[r.Alert] != [2]bool{true, true} {
				t.Errorf("%s: its firing and its silence must both be tested, it is %v", r.Alert, seen[r.Alert])
			}
		}
	}
}

func TestFilesAreUpToDate(t *testing.T) {
	files, err := Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what this package makes of it: run `make docs` and commit it", name)
		}
	}
}

func TestRulesAreValid(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), promtool(t), "check", "rules", "rules.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
