package ecslocal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

const hour = ecslocal.Duration(time.Hour)

func under(t *testing.T, c ecslocal.Conditions) (*ecslocal.Server, *ecs.Client) {
	t.Helper()
	s, client := local(t, of(idle()))
	set(t, s, c)
	return s, client
}

func set(t *testing.T, s *ecslocal.Server, c ecslocal.Conditions) {
	t.Helper()
	if err := s.SetConditions(c); err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, c *ecs.Client) []string {
	t.Helper()
	out, err := c.ListTasks(t.Context(), &ecs.ListTasksInput{})
	if err != nil {
		t.Fatal(err)
	}
	return out.TaskArns
}

func TestCallsBeyondThePublishedRatesAreThrottled(t *testing.T) {
	// A hundredth: one call at once, and the next not within the test.
	s, c := under(t, ecslocal.Conditions{Throttle: 0.01})
	listed(t, c)
	if _, err := c.ListTasks(t.Context(), &ecs.ListTasksInput{}); apiError(err) != "ThrottlingException" {
		t.Errorf("the second read got %v", err)
	}
	task := run(t, c, request()) // launches have a bucket of their own
	if _, err := c.RunTask(t.Context(), request()); apiError(err) != "ThrottlingException" {
		t.Errorf("the second launch got %v", err)
	}
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); apiError(err) != "ThrottlingException" {
		t.Errorf("a stop, which takes from the launches' bucket, got %v", err)
	}
	set(t, s, ecslocal.Conditions{})
	if n := len(listed(t, c)); n != 1 {
		t.Errorf("%d tasks run, want the one that was not throttled", n)
	}
}

func TestANewTaskIsUnseenForAWhile(t *testing.T) {
	s, c := under(t, ecslocal.Conditions{Seed: 1, Unseen: hour})
	in := request()
	in.ClientToken = aws.String("launch-1")
	task := run(t, c, in)
	if arns := listed(t, c); len(arns) != 0 {
		t.Errorf("listed: %v", arns)
	}
	if seen := describe(t, c, task.TaskArn); seen != nil {
		t.Errorf("described: %v", *seen.LastStatus)
	}
	var missing *types.InvalidParameterException
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); !errors.As(err, &missing) {
		t.Errorf("stopping it gave %v", err)
	}
	if again := run(t, c, in); *again.TaskArn != *task.TaskArn {
		t.Errorf("the same clientToken gave another task")
	}
	in.StartedBy = aws.String("somebody")
	var conflict *types.ConflictException
	if _, err := c.RunTask(t.Context(), in); !errors.As(err, &conflict) || len(conflict.ResourceIds) != 1 || conflict.ResourceIds[0] != *task.TaskArn {
		t.Errorf("the same clientToken with a changed call gave %v", err)
	}
	set(t, s, ecslocal.Conditions{})
	if arns := listed(t, c); len(arns) != 1 {
		t.Errorf("later listed: %v", arns)
	}
}

func TestAStoppedTaskStillShowsAsRunning(t *testing.T) {
	s, c := local(t, of(idle()))
	task := run(t, c, request())
	reach(t, c, task.TaskArn, "RUNNING")
	set(t, s, ecslocal.Conditions{Seed: 1, Stale: hour})
	out, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn})
	if err != nil || *out.Task.DesiredStatus != "STOPPED" {
		t.Fatalf("StopTask gave %v (%v)", out, err)
	}
	until(t, "the task is over", func() bool { // its own truth
		set(t, s, ecslocal.Conditions{})
		over := *describe(t, c, task.TaskArn).LastStatus == "STOPPED"
		set(t, s, ecslocal.Conditions{Seed: 1, Stale: hour})
		return over
	})
	if arns := listed(t, c); len(arns) != 1 {
		t.Errorf("listed: %v", arns)
	}
	if seen := describe(t, c, task.TaskArn); *seen.LastStatus != "RUNNING" || *seen.DesiredStatus != "RUNNING" || seen.StopCode != "" || seen.StoppedAt != nil {
		t.Errorf("shows as %s, desired %s, stop code %q", *seen.LastStatus, *seen.DesiredStatus, seen.StopCode)
	}
}

func TestAnAnswerIsLostAfterTheCallWasCarriedOut(t *testing.T) {
	s, c := under(t, ecslocal.Conditions{LostAnswers: 1})
	in := request()
	in.ClientToken = aws.String("launch-1")
	if _, err := c.RunTask(t.Context(), in); err == nil || apiError(err) != "" {
		t.Errorf("the cut call gave %v, want an error of the connection", err)
	}
	arns := listed(t, c)
	if len(arns) != 1 {
		t.Fatalf("listed: %v", arns)
	}
	set(t, s, ecslocal.Conditions{})
	if task := run(t, c, in); *task.TaskArn != arns[0] {
		t.Error("the repeated call started another task")
	}
	if n := len(listed(t, c)); n != 1 {
		t.Errorf("%d tasks run", n)
	}
}

func TestPlacesWithoutRoomFailLaunchesWithStatus200(t *testing.T) {
	_, c := under(t, ecslocal.Conditions{Droughts: []ecslocal.Place{{Subnet: "subnet-1", Provider: "FARGATE_SPOT"}}})
	at := func(subnet, provider string) *ecs.RunTaskInput {
		in := request()
		in.NetworkConfiguration.AwsvpcConfiguration.Subnets = []string{subnet}
		in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{{CapacityProvider: aws.String(provider), Weight: 1}}
		return in
	}
	out, err := c.RunTask(t.Context(), at("subnet-1", "FARGATE_SPOT"))
	if err != nil || len(out.Tasks) != 0 || len(out.Failures) != 1 || !strings.Contains(*out.Failures[0].Reason, "Capacity is unavailable") {
		t.Errorf("in the drought: %v (%v)", out, err)
	}
	run(t, c, at("subnet-1", "FARGATE"))
	run(t, c, at("subnet-2", "FARGATE_SPOT"))
}

func TestALaunchOfSeveralSucceedsInPart(t *testing.T) {
	_, c := under(t, ecslocal.Conditions{Seed: 1, NoRoom: 0.5})
	in := request()
	in.Count = aws.Int32(10)
	out, err := c.RunTask(t.Context(), in)
	if err != nil || len(out.Tasks) == 0 || len(out.Failures) == 0 || len(out.Tasks)+len(out.Failures) != 10 {
		t.Errorf("%d tasks and %d failures (%v)", len(out.Tasks), len(out.Failures), err)
	}
}

func TestATaskDiesWhileStarting(t *testing.T) {
	_, c := under(t, ecslocal.Conditions{DieStarting: 1})
	task := run(t, c, request())
	over := reach(t, c, task.TaskArn, "STOPPED")
	if over.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.HasPrefix(*over.StoppedReason, "CannotPullContainerError") || over.StartedAt != nil {
		t.Errorf("stop code %s, reason %s, started at %v", over.StopCode, *over.StoppedReason, over.StartedAt)
	}
}

func TestATaskIsInterrupted(t *testing.T) {
	s, c := under(t, ecslocal.Conditions{Interrupted: 1, InterruptedIn: ecslocal.Duration(10 * time.Millisecond)})
	if over := reach(t, c, run(t, c, request()).TaskArn, "STOPPED"); over.StopCode != types.TaskStopCodeSpotInterruption {
		t.Errorf("stop code %s", over.StopCode)
	}
	set(t, s, ecslocal.Conditions{})
	task := run(t, c, request())
	if !s.Stop(*task.TaskArn, "TerminationNotice", "retired") || s.Stop(*task.TaskArn, "TerminationNotice", "again") {
		t.Error("want the first order to stop it, and no other")
	}
	if over := reach(t, c, task.TaskArn, "STOPPED"); over.StopCode != types.TaskStopCodeTerminationNotice || *over.StoppedReason != "retired" {
		t.Errorf("stop code %s, reason %s", over.StopCode, *over.StoppedReason)
	}
}

func TestAListFailsOnALaterPage(t *testing.T) {
	_, c := under(t, ecslocal.Conditions{FailedPages: 1})
	for range 3 {
		run(t, c, request())
	}
	in := &ecs.ListTasksInput{MaxResults: aws.Int32(2)}
	out, err := c.ListTasks(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	in.NextToken = out.NextToken
	if _, err := c.ListTasks(t.Context(), in); apiError(err) != "ServerException" {
		t.Errorf("the second page gave %v", err)
	}
}

func TestTheSameSeedGivesTheSameDay(t *testing.T) {
	day := func(seed uint64) string {
		_, c := under(t, ecslocal.Conditions{Seed: seed, Errors: 0.3, NoRoom: 0.3})
		var story strings.Builder
		for range 40 {
			out, err := c.RunTask(t.Context(), request())
			switch {
			case err != nil:
				story.WriteString("e")
			case len(out.Failures) > 0:
				story.WriteString("f")
			default:
				story.WriteString(".")
			}
		}
		return story.String()
	}
	first := day(7)
	if again := day(7); again != first {
		t.Errorf("first %s, then %s", first, again)
	}
	if day(8) == first || !strings.Contains(first, "e") || !strings.Contains(first, "f") || !strings.Contains(first, ".") {
		t.Errorf("%s", first)
	}
}

func TestHooksRunAroundTheCall(t *testing.T) {
	s, c := local(t, of(idle()))
	before, after := -1, -1
	count := func(n *int) func() {
		return func() {
			out, err := c.ListTasks(context.Background(), &ecs.ListTasksInput{})
			if err != nil {
				t.Error(err)
				return
			}
			*n = len(out.TaskArns)
		}
	}
	s.Fail("RunTask", 1, ecslocal.Fault{Before: count(&before), After: count(&after)})
	run(t, c, request())
	if before != 0 || after != 1 {
		t.Errorf("%d tasks before, %d after", before, after)
	}
}

func TestAScriptChangesTheConditions(t *testing.T) {
	steps, err := ecslocal.ParseScript([]byte(`[
		{"at": "0s", "conditions": {"errors": 1}, "calls": {"RunTask": [{"failureReason": "RESOURCE:MEMORY"}]}},
		{"at": "1h", "conditions": {}}]`))
	if err != nil {
		t.Fatal(err)
	}
	cfg := of(idle())
	cfg.Script = steps
	s, c := local(t, cfg)
	if out, err := c.RunTask(t.Context(), request()); err != nil || len(out.Failures) != 1 || *out.Failures[0].Reason != "RESOURCE:MEMORY" {
		t.Errorf("the ordered call gave %v (%v)", out, err)
	}
	if _, err := c.RunTask(t.Context(), request()); apiError(err) != "ServerException" {
		t.Errorf("the next call gave %v", err)
	}
	if got := s.Conditions(); got.Errors != 1 {
		t.Errorf("in force: %+v", got)
	}
	for text, want := range map[string]string{
		`{}`:    "cannot unmarshal object",
		`[] []`: "follows",
		`[{"at": "1s", "conditions": {"error": 1}}]`:   "unknown field",
		`[{"at": "1s", "conditions": {"errors": 2}}]`:  "share",
		`[{"at": "2s"}, {"at": "1s"}]`:                 "before the one before",
		`[{"at": "0s", "calls": {"Run": []}}]`:         "not one of the operations",
		`[{"at": "soon"}]`:                             "duration",
		`[{"at": "0s", "conditions":{"slow": "-1s"}}]`: "no less than 0",
	} {
		if _, err := ecslocal.ParseScript([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something of %q", text, err, want)
		}
	}
}

func TestFaultsAreOrderedOverHTTP(t *testing.T) {
	s, c := local(t, of(idle()))
	order := func(method, path, body string, headers ...string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if status, text := order(http.MethodPut, "/_faults", `{"stale": "5s", "droughts": [{"subnet": "subnet-1"}]}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if out, err := c.RunTask(t.Context(), request()); err != nil || len(out.Failures) != 1 {
		t.Errorf("in the drought: %v (%v)", out, err)
	}
	_, text := order(http.MethodGet, "/_faults", "")
	var told struct {
		Conditions ecslocal.Conditions
		Calls      map[string]int
	}
	if err := json.Unmarshal([]byte(text), &told); err != nil || told.Calls["RunTask"] != 1 || told.Conditions.Stale != ecslocal.Duration(5*time.Second) {
		t.Errorf("told %s (%v)", text, err)
	}
	order(http.MethodPut, "/_faults", `{}`)
	if status, text := order(http.MethodPost, "/_faults/calls", `{"op": "RunTask", "fault": {"exception": "ClientException"}}`); status != http.StatusNoContent {
		t.Errorf("%d %s", status, text)
	}
	if _, err := c.RunTask(t.Context(), request()); apiError(err) != "ClientException" {
		t.Errorf("the ordered call gave %v", err)
	}
	task := run(t, c, request())
	if status, _ := order(http.MethodPost, "/_faults/stop", `{"task": "`+*task.TaskArn+`", "code": "SpotInterruption"}`); status != http.StatusNoContent {
		t.Errorf("%d", status)
	}
	reach(t, c, task.TaskArn, "STOPPED")
	for _, bad := range [][2]string{{"/_faults/calls", `{"op": "Run"}`}, {"/_faults/calls", `{"n": 0, "op": "RunTask"}`}, {"/_faults/calls", `{"x": 1}`}} {
		if status, _ := order(http.MethodPost, bad[0], bad[1]); status != http.StatusBadRequest {
			t.Errorf("%v: %d", bad, status)
		}
	}
	if status, _ := order(http.MethodPut, "/_faults", `{}`, "Origin", "http://example.com"); status != http.StatusForbidden {
		t.Errorf("a web page may change the weather: %d", status)
	}
}
