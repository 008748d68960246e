package ecs_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/controller/ecs"
)

// The stored text is a format: launches of an older version must go on meaning the same call.
func TestPrepareGivesTheWholeCallButForTheToken(t *testing.T) {
	f := fleet(client(t, cluster(t)), func(c *ecs.Config) {
		c.Deployment = "prod"
		c.LaunchType = "FARGATE"
		c.PlatformVersion = "1.4.0"
		c.Subnets = []string{"subnet-b", "subnet-a"}
		c.SecurityGroups = []string{"sg-1"}
		c.AssignPublicIP = true
		c.ContainerPort = 9000
		c.Environment = map[string]string{"LOG_LEVEL": "debug", "A": "b"}
		c.Tags = map[string]string{"team": "x"}
	})
	got, port, err := f.Prepare("cnt_1", 7)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cluster":"default","taskDefinition":"browser","clientToken":"cnt_1","startedBy":"prod","launchType":"FARGATE","platformVersion":"1.4.0",` +
		`"subnets":["subnet-b","subnet-a"],"securityGroups":["sg-1"],"assignPublicIp":true,"container":"BrowserContainer",` +
		`"environment":[{"name":"CONTAINER_ID","value":"cnt_1"},{"name":"PROXY_ENDPOINT","value":"http://127.0.0.1:1/internal/register"},` +
		`{"name":"CONTAINER_MODE","value":"MULTI_SESSION"},{"name":"MAX_SESSIONS","value":"7"},{"name":"A","value":"b"},{"name":"LOG_LEVEL","value":"debug"}],` +
		`"tags":[{"name":"wallcrawler:deployment","value":"prod"},{"name":"wallcrawler:launch","value":"cnt_1"},{"name":"team","value":"x"}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("the input differs (-want +got):\n%s", diff)
	}
	if port != 9000 {
		t.Errorf("it listens at %d, want 9000", port)
	}
	for range 20 { // maps are walked in another order each time
		again, _, err := f.Prepare("cnt_1", 7)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("prepared again it is %s (%v)", again, err)
		}
	}
	if strings.Contains(string(got), "token-of-") {
		t.Error("the container's token is in what is stored")
	}
}

func TestPrepareRefuses(t *testing.T) {
	c := client(t, cluster(t))
	for name, tc := range map[string]struct {
		change func(*ecs.Config)
		launch string
		slots  int
		want   string
	}{
		"no client":                {change: func(c *ecs.Config) { c.Client = nil }, want: "no ECS client"},
		"no deployment":            {change: func(c *ecs.Config) { c.Deployment = "" }, want: `deployment ""`},
		"a deployment with a dot":  {change: func(c *ecs.Config) { c.Deployment = "a.b" }, want: `deployment "a.b"`},
		"a deployment too long":    {change: func(c *ecs.Config) { c.Deployment = strings.Repeat("x", 129) }, want: "deployment"},
		"no definition":            {change: func(c *ecs.Config) { c.TaskDefinition = "" }, want: "no task definition"},
		"launch type and provider": {change: func(c *ecs.Config) { c.LaunchType, c.CapacityProviders = "EC2", []ecs.CapacityProvider{{Name: "x"}} }, want: "give one"},
		"Fargate without subnets":  {change: func(c *ecs.Config) { c.LaunchType, c.Subnets = "FARGATE", nil }, want: "no subnet"},
		"Fargate Spot without subnets": {change: func(c *ecs.Config) {
			c.CapacityProviders, c.Subnets = []ecs.CapacityProvider{{Name: "FARGATE_SPOT"}}, nil
		}, want: "no subnet"},
		"no place to register":           {change: func(c *ecs.Config) { c.RegisterURL = "proxy:8080" }, want: "register URL"},
		"a variable of ours":             {change: func(c *ecs.Config) { c.Environment = map[string]string{"CONTAINER_TOKEN": "x"} }, want: "CONTAINER_TOKEN is set by this service"},
		"a variable that is none":        {change: func(c *ecs.Config) { c.Environment = map[string]string{"A-B": "x"} }, want: `"A-B"`},
		"a tag of ours":                  {change: func(c *ecs.Config) { c.Tags = map[string]string{"wallcrawler:launch": "x"} }, want: "wallcrawler:launch"},
		"a tag of AWS":                   {change: func(c *ecs.Config) { c.Tags = map[string]string{"aws:x": "x"} }, want: "aws:x"},
		"too much environment":           {change: func(c *ecs.Config) { c.Environment = map[string]string{"A": strings.Repeat("x", 8192)} }, want: "task definition"},
		"a token that makes it too much": {change: func(c *ecs.Config) { c.Token = func(string) string { return strings.Repeat("x", 8192) } }, want: "8192"},
		"a launch too long":              {launch: strings.Repeat("x", 65), want: "64"},
		"a launch with a blank":          {launch: "a b", want: "64"},
		"no slots":                       {slots: -1, want: "slot"},
	} {
		if tc.change == nil {
			tc.change = func(*ecs.Config) {}
		}
		if tc.launch == "" {
			tc.launch = "cnt_1"
		}
		_, _, err := fleet(c, tc.change).Prepare(tc.launch, tc.slots+1)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want something about %s", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), strings.Repeat("x", 200)) {
			t.Errorf("%s: the error shows values: %v", name, err)
		}
	}
}

func TestRunRefusesAnInputThatIsNotTheLaunchs(t *testing.T) {
	s := cluster(t)
	f := fleet(client(t, s))
	good := launch(t, f, "cnt_1")
	for name, change := range map[string]func(){
		"another launch":     func() { good.ID = "cnt_2" },
		"another deployment": func() { f = fleet(client(t, s), func(c *ecs.Config) { c.Deployment = "other" }) },
		"no JSON":            func() { good.Input = json.RawMessage("{") },
	} {
		change()
		if task, err := f.Run(t.Context(), good); err == nil {
			t.Errorf("%s: got the task %v", name, task)
		}
	}
	if n := s.Calls("RunTask"); n != 0 {
		t.Errorf("made %d calls", n)
	}
}
