package ecslocal_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

func TestATaskGoesThroughTheStatesInOrder(t *testing.T) {
	order := []string{"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"}
	d := idle()
	d.Run = func(ctx context.Context, _ ecslocal.TaskEnv) int {
		<-ctx.Done()
		<-time.After(50 * time.Millisecond)
		return 0
	}
	cfg := of(d)
	cfg.Delays = ecslocal.Delays{
		Provisioning: 50 * time.Millisecond, Pending: 50 * time.Millisecond, Activating: 50 * time.Millisecond,
		Deactivating: 50 * time.Millisecond, Deprovisioning: 50 * time.Millisecond,
	}
	_, c := local(t, cfg)
	task := run(t, c, request())
	if *task.LastStatus != order[0] || *task.DesiredStatus != "RUNNING" {
		t.Errorf("RunTask gave a task %s that is to be %s", *task.LastStatus, *task.DesiredStatus)
	}
	var seen []string
	version := int64(0)
	observe := func() string {
		now := describe(t, c, task.TaskArn)
		if now.Version < version {
			t.Fatalf("the version went from %d to %d", version, now.Version)
		}
		if len(seen) == 0 || seen[len(seen)-1] != *now.LastStatus {
			if now.Version == version {
				t.Errorf("the state changed to %s without the version", *now.LastStatus)
			}
			seen = append(seen, *now.LastStatus)
		}
		if addressed := len(now.Containers[0].NetworkInterfaces) > 0; addressed != (*now.LastStatus != "PROVISIONING") {
			t.Errorf("has an address in %s: %v", *now.LastStatus, addressed)
		}
		version = now.Version
		return *now.LastStatus
	}
	until(t, "RUNNING", func() bool { return observe() == "RUNNING" })
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); err != nil {
		t.Fatal(err)
	}
	until(t, "STOPPED", func() bool { return observe() == "STOPPED" })
	at := 0
	for _, status := range seen {
		i := slices.Index(order[at:], status)
		if i < 0 {
			t.Fatalf("saw %v, which is out of order", seen)
		}
		at += i
	}
	if len(seen) < len(order)-2 { // a slow machine may look away in one or two
		t.Errorf("saw only %v", seen)
	}
}

func TestATaskStoppedBeforeItRunsNeverRuns(t *testing.T) {
	ran := make(chan struct{}, 1)
	cfg := of(ecslocal.Definition{Run: func(context.Context, ecslocal.TaskEnv) int {
		ran <- struct{}{}
		return 0
	}})
	cfg.Delays.Activating = time.Hour
	_, c := local(t, cfg)
	task := run(t, c, request())
	reach(t, c, task.TaskArn, "ACTIVATING")
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); err != nil {
		t.Fatal(err)
	}
	stopped := reach(t, c, task.TaskArn, "STOPPED")
	if len(ran) > 0 || stopped.StartedAt != nil || stopped.StopCode != types.TaskStopCodeUserInitiated {
		t.Errorf("ran %d times, started at %v, stop code %s", len(ran), stopped.StartedAt, stopped.StopCode)
	}
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn, Reason: aws.String("again")}); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
	if again := describe(t, c, task.TaskArn); *again.StoppedReason != *stopped.StoppedReason {
		t.Errorf("stopping it again changed the reason to %q", *again.StoppedReason)
	}
}

func TestAClientTokenIsOneCall(t *testing.T) {
	s, c := local(t, of(idle()))
	in := request()
	in.ClientToken = aws.String("launch-1")
	in.Count = aws.Int32(2)
	var (
		mu   sync.Mutex
		arns = map[string]int{}
		wg   sync.WaitGroup
	)
	for range 10 {
		wg.Go(func() {
			out, err := c.RunTask(t.Context(), in)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, task := range out.Tasks {
				arns[*task.TaskArn]++
			}
		})
	}
	wg.Wait()
	if len(arns) != 2 {
		t.Fatalf("ten equal calls started the tasks %v, want two", arns)
	}

	in.StartedBy = aws.String("other")
	_, err := c.RunTask(t.Context(), in)
	var conflict *types.ConflictException
	if !errors.As(err, &conflict) {
		t.Fatalf("the token with other parameters gave %v, want ConflictException", err)
	}
	if len(conflict.ResourceIds) != 2 || arns[conflict.ResourceIds[0]] == 0 {
		t.Errorf("the conflict names %v, want the two tasks", conflict.ResourceIds)
	}

	s.Fail("RunTask", 1, ecslocal.Fault{FailureReason: "RESOURCE:CPU"})
	in.ClientToken = aws.String("launch-2")
	for range 2 { // the second is the replay, with no fault ordered
		out, err := c.RunTask(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Tasks) != 0 || len(out.Failures) != 1 || *out.Failures[0].Reason != "RESOURCE:CPU" {
			t.Errorf("got %d tasks and the failures %v", len(out.Tasks), out.Failures)
		}
	}
}

func TestListTasks(t *testing.T) {
	_, c := local(t, of(idle()))
	want := map[string]bool{}
	for i := range 25 {
		in := request()
		in.Count = aws.Int32(10)
		in.StartedBy = aws.String([]string{"ours", "theirs"}[i%2])
		out, err := c.RunTask(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range out.Tasks {
			if i%2 == 0 {
				want[*task.TaskArn] = true
			}
		}
	}
	in := &ecs.ListTasksInput{StartedBy: aws.String("ours")}
	var sizes []int
	got := map[string]bool{}
	var token *string
	for {
		out, err := c.ListTasks(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(out.TaskArns))
		for _, arn := range out.TaskArns {
			if got[arn] || !want[arn] {
				t.Errorf("%s is there twice or not ours", arn)
			}
			got[arn] = true
		}
		if out.NextToken == nil {
			break
		}
		token = out.NextToken
		in.NextToken = token
	}
	if !slices.Equal(sizes, []int{100, 30}) {
		t.Errorf("pages of %v, want 100 and 30", sizes)
	}

	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: aws.String(first(want))}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		in   ecs.ListTasksInput
		want int
		err  string
	}{
		"stopping tasks are not listed":       {in: ecs.ListTasksInput{StartedBy: aws.String("ours"), NextToken: nil, MaxResults: aws.Int32(1)}, want: 1},
		"desired status STOPPED gives them":   {in: ecs.ListTasksInput{StartedBy: aws.String("ours"), DesiredStatus: types.DesiredStatusStopped}, want: 1},
		"desired status PENDING gives none":   {in: ecs.ListTasksInput{DesiredStatus: types.DesiredStatusPending}},
		"a family without tasks gives none":   {in: ecs.ListTasksInput{Family: aws.String("other")}},
		"startedBy is the only filter":        {in: ecs.ListTasksInput{StartedBy: aws.String("ours"), Family: aws.String(family)}, err: "InvalidParameterException"},
		"a page has at most 100":              {in: ecs.ListTasksInput{MaxResults: aws.Int32(101)}, err: "InvalidParameterException"},
		"a token is good for its query only":  {in: ecs.ListTasksInput{NextToken: token}, err: "InvalidParameterException"},
		"a token must be one":                 {in: ecs.ListTasksInput{NextToken: aws.String("2")}, err: "InvalidParameterException"},
		"an unknown cluster is an error":      {in: ecs.ListTasksInput{Cluster: aws.String("other")}, err: "ClusterNotFoundException"},
		"the cluster's ARN is as good a name": {in: ecs.ListTasksInput{Cluster: aws.String("arn:aws:ecs:us-east-1:000000000000:cluster/default"), MaxResults: aws.Int32(5)}, want: 5},
	} {
		out, err := c.ListTasks(t.Context(), &tc.in)
		if apiError(err) != tc.err || (err == nil && len(out.TaskArns) != tc.want) {
			t.Errorf("%s: got %v and %v", name, out, err)
		}
	}
}

func first(set map[string]bool) string {
	for k := range set {
		return k
	}
	return ""
}

func TestDescribeTasks(t *testing.T) {
	cfg := of(idle())
	cfg.Retention = 50 * time.Millisecond
	_, c := local(t, cfg)
	in := request()
	in.StartedBy = aws.String("ours")
	in.Tags = []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	task := run(t, c, in)
	reach(t, c, task.TaskArn, "RUNNING")

	out, err := c.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn, strings.Repeat("0", 32)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Tasks) != 1 || len(out.Tasks[0].Tags) != 0 || *out.Tasks[0].StartedBy != "ours" {
		t.Errorf("without TAGS got %+v", out.Tasks)
	}
	if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("an unknown task gave the failures %v", out.Failures)
	}
	if tags := describe(t, c, task.TaskArn).Tags; len(tags) != 1 || *tags[0].Value != "v" {
		t.Errorf("with TAGS got the tags %v", tags)
	}
	if created := describe(t, c, task.TaskArn).CreatedAt; time.Since(*created).Abs() > time.Minute {
		t.Errorf("created at %v", created)
	}

	for name, in := range map[string]ecs.DescribeTasksInput{
		"none":            {Tasks: []string{}},
		"too many":        {Tasks: slices.Repeat([]string{*task.TaskArn}, 101)},
		"no id":           {Tasks: []string{"local"}},
		"no task's ARN":   {Tasks: []string{"arn:aws:ecs:us-east-1:000000000000:cluster/default"}},
		"unknown include": {Tasks: []string{*task.TaskArn}, Include: []types.TaskField{"EVERYTHING"}},
	} {
		if _, err := c.DescribeTasks(t.Context(), &in); apiError(err) != "InvalidParameterException" {
			t.Errorf("%s: got %v", name, err)
		}
	}

	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); err != nil {
		t.Fatal(err)
	}
	until(t, "the task is forgotten", func() bool { return describe(t, c, task.TaskArn) == nil })
	if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); apiError(err) != "InvalidParameterException" {
		t.Errorf("stopping a forgotten task gave %v", err)
	}
}

func TestRunTaskRefusesWhatECSRefuses(t *testing.T) {
	s, c := local(t, of(idle()))
	override := func(name, variable, value string) *types.TaskOverride {
		return &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{
			Name: aws.String(name), Environment: []types.KeyValuePair{{Name: aws.String(variable), Value: aws.String(value)}},
		}}}
	}
	for name, tc := range map[string]struct {
		change func(*ecs.RunTaskInput)
		want   string
	}{
		"an unknown cluster":    {func(in *ecs.RunTaskInput) { in.Cluster = aws.String("other") }, "ClusterNotFoundException"},
		"an unknown definition": {func(in *ecs.RunTaskInput) { in.TaskDefinition = aws.String("other") }, "ClientException"},
		"an unknown revision":   {func(in *ecs.RunTaskInput) { in.TaskDefinition = aws.String(family + ":2") }, "ClientException"},
		"another account": {func(in *ecs.RunTaskInput) {
			in.TaskDefinition = aws.String("arn:aws:ecs:us-east-1:1:task-definition/" + family)
		}, "ClientException"},
		"an unknown container": {func(in *ecs.RunTaskInput) { in.Overrides = override("other", "A", "b") }, "InvalidParameterException"},
		"overrides too long": {func(in *ecs.RunTaskInput) {
			in.Overrides = override("BrowserContainer", "A", strings.Repeat("x", 8192))
		}, "InvalidParameterException"},
		"a variable without a name": {func(in *ecs.RunTaskInput) { in.Overrides = override("BrowserContainer", "", "b") }, "InvalidParameterException"},
		"eleven at once":            {func(in *ecs.RunTaskInput) { in.Count = aws.Int32(11) }, "InvalidParameterException"},
		"none":                      {func(in *ecs.RunTaskInput) { in.Count = aws.Int32(0) }, "InvalidParameterException"},
		"a token too long":          {func(in *ecs.RunTaskInput) { in.ClientToken = aws.String(strings.Repeat("x", 65)) }, "InvalidParameterException"},
		"a token with a blank":      {func(in *ecs.RunTaskInput) { in.ClientToken = aws.String("a b") }, "InvalidParameterException"},
		"startedBy with a dot":      {func(in *ecs.RunTaskInput) { in.StartedBy = aws.String("a.b") }, "InvalidParameterException"},
		"no network":                {func(in *ecs.RunTaskInput) { in.NetworkConfiguration = nil }, "InvalidParameterException"},
		"no subnet":                 {func(in *ecs.RunTaskInput) { in.NetworkConfiguration.AwsvpcConfiguration.Subnets = []string{} }, "InvalidParameterException"},
		"launch type and provider": {func(in *ecs.RunTaskInput) {
			in.LaunchType, in.CapacityProviderStrategy = "FARGATE", []types.CapacityProviderStrategyItem{{CapacityProvider: aws.String("FARGATE_SPOT")}}
		}, "InvalidParameterException"},
		"an unknown launch type":      {func(in *ecs.RunTaskInput) { in.LaunchType = "MOON" }, "InvalidParameterException"},
		"tags from a service":         {func(in *ecs.RunTaskInput) { in.PropagateTags = types.PropagateTagsService }, "InvalidParameterException"},
		"a reserved tag":              {func(in *ecs.RunTaskInput) { in.Tags = []types.Tag{{Key: aws.String("aws:x"), Value: aws.String("y")}} }, "InvalidParameterException"},
		"a reserved group":            {func(in *ecs.RunTaskInput) { in.Group = aws.String("service:x") }, "InvalidParameterException"},
		"what only ECS may use":       {func(in *ecs.RunTaskInput) { in.ReferenceId = aws.String("x") }, "SerializationException"},
		"what the endpoint cannot do": {func(in *ecs.RunTaskInput) { in.PlacementStrategy = []types.PlacementStrategy{{Type: "spread"}} }, "SerializationException"},
	} {
		in := request()
		tc.change(in)
		if out, err := c.RunTask(t.Context(), in); apiError(err) != tc.want {
			t.Errorf("%s: got %v and %v, want %s", name, out, err, tc.want)
		}
	}
	for _, name := range []string{family + ":1", "arn:aws:ecs:us-east-1:000000000000:task-definition/" + family + ":1"} {
		in := request()
		in.TaskDefinition, in.Cluster = aws.String(name), aws.String(s.Cluster())
		run(t, c, in)
	}
	if _, err := c.ListClusters(t.Context(), &ecs.ListClustersInput{}); apiError(err) != "UnknownOperationException" {
		t.Errorf("ListClusters gave %v", err)
	}
}

func TestOnlyProgramsOnThisMachineThatSignMayCall(t *testing.T) {
	s, _ := local(t, of(idle()))
	for name, tc := range map[string]struct {
		header map[string]string
		host   string
		method string
		want   int
	}{
		"as it should be":    {want: 200},
		"from a page":        {header: map[string]string{"Origin": "http://evil.example"}, want: 403},
		"by a rebound name":  {host: "evil.example", want: 403},
		"as a form":          {header: map[string]string{"Content-Type": "text/plain"}, want: 400},
		"unsigned":           {header: map[string]string{"Authorization": ""}, want: 400},
		"for no operation":   {header: map[string]string{"X-Amz-Target": "Other.ListTasks"}, want: 400},
		"with another verb":  {method: http.MethodPut, want: 404},
		"by localhost, fine": {host: "localhost:1", want: 200},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.ListTasks")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=any")
		for k, v := range tc.header {
			r.Header.Set(k, v)
		}
		if tc.host != "" {
			r.Host = tc.host
		}
		if tc.method != "" {
			r.Method = tc.method
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.want || (tc.want != 200) != strings.Contains(string(body), `"__type":`) {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body, tc.want)
		}
	}
}

func TestFaultsBefallTheNextCalls(t *testing.T) {
	s, c := local(t, of(idle()))
	list := func() error {
		_, err := c.ListTasks(t.Context(), &ecs.ListTasksInput{})
		return err
	}
	s.Fail("ListTasks", 2, ecslocal.Fault{Exception: "ThrottlingException", Message: "Rate exceeded"})
	s.Fail("ListTasks", 1, ecslocal.Fault{Status: 500})
	for _, want := range []string{"ThrottlingException", "ThrottlingException"} {
		if err := list(); apiError(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	var status interface{ HTTPStatusCode() int }
	if err := list(); !errors.As(err, &status) || status.HTTPStatusCode() != 500 {
		t.Errorf("got %v, want a 500", err)
	}
	if err := list(); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	if n := s.Calls("ListTasks"); n != 4 {
		t.Errorf("counted %d calls, want 4", n)
	}

	s.Fail("RunTask", 1, ecslocal.Fault{Hang: ecslocal.Duration(time.Hour)})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.RunTask(ctx, request()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call that hangs gave %v", err)
	}
	out, err := c.ListTasks(t.Context(), &ecs.ListTasksInput{})
	if err != nil || len(out.TaskArns) != 1 {
		t.Errorf("the call that hung was carried out %d times (%v)", len(out.TaskArns), err)
	}
}

func TestStartRefusesBadConfigurations(t *testing.T) {
	for name, change := range map[string]func(*ecslocal.Config){
		"no definition":         func(c *ecslocal.Config) { c.Definitions = nil },
		"nothing to run":        func(c *ecslocal.Config) { c.Definitions = map[string]ecslocal.Definition{family: {}} },
		"a cluster with a path": func(c *ecslocal.Config) { c.Cluster = "a/b" },
		"a wrong account":       func(c *ecslocal.Config) { c.Account = "12" },
		"all interfaces":        func(c *ecslocal.Config) { c.Listen = "0.0.0.0:0" },
		"a malformed variable":  func(c *ecslocal.Config) { c.Definitions = map[string]ecslocal.Definition{family: shell("", "X")} },
	} {
		cfg := of(idle())
		change(&cfg)
		if s, err := ecslocal.Start(cfg); err == nil {
			t.Errorf("%s: started", name)
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func ExampleServer_Fail() {
	s, err := ecslocal.Start(ecslocal.Config{Definitions: map[string]ecslocal.Definition{
		"browser": {Command: []string{"sleep", "100"}},
	}})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	s.Fail("ListTasks", 1, ecslocal.Fault{Exception: "ThrottlingException", Message: "Rate exceeded"})
	_, err = clientOf(s.URL()).ListTasks(context.Background(), &ecs.ListTasksInput{})
	fmt.Println(apiError(err))
	// Output: ThrottlingException
}
