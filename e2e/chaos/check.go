//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// task is one of ECS's.
type task struct {
	ARN        string `json:"taskArn"`
	LastStatus string `json:"lastStatus"`
	Overrides  struct {
		ContainerOverrides []struct {
			Environment []struct{ Name, Value string } `json:"environment"`
		} `json:"containerOverrides"`
	} `json:"overrides"`
}

// launch is the id that a task was started under.
func (t *task) launch() string {
	for _, c := range t.Overrides.ContainerOverrides {
		for _, v := range c.Environment {
			if v.Name == "CONTAINER_ID" {
				return v.Value
			}
		}
	}
	return ""
}

// ecs makes a call of the ECS API by hand, so that what is compared does not come from the
// code under test.
func (w *world) ecs(ctx context.Context, op string, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cloud.URL(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113."+op)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=local")
	resp, err := (&http.Client{Timeout: dialTimeout}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", op, resp.Status, text)
	}
	return json.Unmarshal(text, out)
}

// tasks lists ECS's tasks, all that it still knows.
func (w *world) tasks(ctx context.Context) (running, over []task, err error) {
	for _, status := range []string{"RUNNING", "STOPPED"} {
		next := ""
		for {
			in := map[string]any{"cluster": "chaos", "startedBy": "default", "desiredStatus": status}
			if next != "" {
				in["nextToken"] = next
			}
			var page struct {
				TaskArns  []string `json:"taskArns"`
				NextToken string   `json:"nextToken"`
			}
			if err := w.ecs(ctx, "ListTasks", in, &page); err != nil {
				return nil, nil, err
			}
			if len(page.TaskArns) > 0 {
				var described struct{ Tasks []task }
				if err := w.ecs(ctx, "DescribeTasks", map[string]any{"cluster": "chaos", "tasks": page.TaskArns}, &described); err != nil {
					return nil, nil, err
				}
				for _, t := range described.Tasks {
					if t.LastStatus == "STOPPED" {
						over = append(over, t)
					} else {
						running = append(running, t)
					}
				}
			}
			if next = page.NextToken; next == "" {
				break
			}
		}
	}
	return running, over, nil
}

// container is what the API says of one.
type container struct {
	ID, Phase, TaskARN string
}

// compare is nil when ECS's tasks are the registry's containers, n of them, all ready.
func (w *world) compare(ctx context.Context, n int) error {
	running, _, err := w.tasks(ctx)
	if err != nil {
		return err
	}
	var known []container
	if err := w.anyAPI().Do(ctx, http.MethodGet, "/v1/containers", nil, &known); err != nil {
		return err
	}
	ready := map[string]bool{}
	var errs []error
	for _, c := range known {
		switch c.Phase {
		case "gone":
		case "ready":
			ready[c.TaskARN] = true
		default:
			errs = append(errs, fmt.Errorf("container %s is %s", c.ID, c.Phase))
		}
	}
	for _, t := range running {
		if !ready[t.ARN] {
			errs = append(errs, fmt.Errorf("task %s of launch %s (%s) is no container that is ready", t.ARN, t.launch(), t.LastStatus))
		}
		delete(ready, t.ARN)
	}
	for arn := range ready {
		errs = append(errs, fmt.Errorf("a container's task %s does not run", arn))
	}
	if len(running) != n {
		errs = append(errs, fmt.Errorf("%d tasks run, %d are wanted", len(running), n))
	}
	return errors.Join(errs...)
}

// started counts the tasks that there ever were, and complains of two for one launch.
func (w *world) started(ctx context.Context) (n int, err error) {
	running, over, err := w.tasks(ctx)
	if err != nil {
		return 0, err
	}
	by := map[string]string{}
	for _, t := range append(running, over...) {
		if other, twice := by[t.launch()]; twice && other != t.ARN {
			err = errors.Join(err, fmt.Errorf("launch %s has two tasks: %s and %s", t.launch(), other, t.ARN))
		}
		by[t.launch()] = t.ARN
	}
	return len(by), err
}

// silent is how many containers the leader says are.
func (w *world) silent(ctx context.Context) int {
	silent := 0
	for _, r := range w.alive() {
		var text string
		if err := stage.NewCaller("http://"+r.host, apiKey).Do(ctx, http.MethodGet, "/metrics", nil, &text); err != nil {
			continue
		}
		leads, held := false, 0
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, _ := strconv.Atoi(value) // others are no whole numbers
			switch name {
			case "wallcrawler_leader":
				leads = n == 1
			case `wallcrawler_holds{kind="container"}`:
				held = n
			}
		}
		if leads {
			silent += held
		}
	}
	return silent
}

// describe is what a replica knows, for people.
func (w *world) describe() string {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var all []struct {
		ID, Phase, Owner, SeenAt string
		Used                     int
	}
	var planned struct {
		Actions []struct{ Kind, Subject, Because string }
		Holds   []struct{ What, ID, Why string }
		Demand  json.RawMessage
	}
	api := w.anyAPI()
	err := errors.Join(api.Do(ctx, http.MethodGet, "/v1/containers", nil, &all), api.Do(ctx, http.MethodGet, "/v1/plan", nil, &planned))
	var text strings.Builder
	if err != nil {
		_, _ = fmt.Fprintln(&text, err)
	}
	for _, c := range all {
		if c.Phase != "gone" {
			_, _ = fmt.Fprintf(&text, "  container %s: %s, %d used, owner %s, seen %s\n", c.ID, c.Phase, c.Used, c.Owner, c.SeenAt)
		}
	}
	for _, a := range planned.Actions {
		_, _ = fmt.Fprintf(&text, "  would %s %s: %s\n", a.Kind, a.Subject, a.Because)
	}
	for i, h := range planned.Holds {
		if i < 10 {
			_, _ = fmt.Fprintf(&text, "  holds %s %s: %s\n", h.What, h.ID, h.Why)
		}
	}
	_, _ = fmt.Fprintf(&text, "  demand %s\n", planned.Demand)
	return text.String()
}
