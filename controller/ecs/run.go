package ecs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/state"
)

// Run starts the launch's task. See state.Fleet.
func (f *Fleet) Run(ctx context.Context, l *state.Launch) (state.Task, error) {
	doing := "running a task for launch " + l.ID
	var in input
	if err := json.Unmarshal(l.Input, &in); err != nil {
		return state.Task{}, fmt.Errorf("%s: its stored input is not ours: %w", doing, err)
	}
	if in.ClientToken != l.ID || in.StartedBy != f.cfg.Deployment {
		return state.Task{}, fmt.Errorf("%s: its stored input is launch %q of deployment %q, not of %q", doing, in.ClientToken, in.StartedBy, f.cfg.Deployment)
	}
	out, err := call(ctx, f, opRun, f.cfg.Client.RunTask, in.request(f.token(l.ID)))
	if conflict := conflicting(err); conflict != nil {
		f.log.Warn("launch was called with other parameters before", "launch", l.ID, "tasks", conflict.ResourceIds)
		return f.adopt(ctx, l.ID, conflict)
	}
	if err != nil {
		return state.Task{}, f.explain(err, doing)
	}
	if len(out.Tasks) > 0 {
		task, ours := f.task(&out.Tasks[0])
		if !ours {
			return state.Task{}, fmt.Errorf("%s: ECS gave task %s, which is not this deployment's", doing, task.ARN)
		}
		return task, nil
	}
	if len(out.Failures) > 0 {
		return state.Task{}, refused(out.Failures[0])
	}
	return state.Task{}, fmt.Errorf("%s: ECS gave neither a task nor a failure", doing)
}

// refused makes the answer out of a failure.
func refused(failure types.Failure) error {
	reason, detail := aws.ToString(failure.Reason), aws.ToString(failure.Detail)
	return &state.LaunchRefused{
		Reason:   strings.Trim(cmp.Or(reason, "no reason given")+": "+detail, ": "),
		Capacity: capacity(reason, detail),
	}
}

// adopt settles a conflict: the launch's clientToken has tasks already, started with what was
// then its token or by a version that made the call differently. The launch's own is the one.
func (f *Fleet) adopt(ctx context.Context, launch string, conflict *types.ConflictException) (state.Task, error) {
	doing := "looking for the task of launch " + launch + " after a conflict"
	tasks, err := f.Describe(ctx, conflict.ResourceIds...)
	if err != nil {
		return state.Task{}, fmt.Errorf("%s: %w", doing, err)
	}
	for _, t := range tasks {
		if t.ContainerID == launch {
			return t, nil
		}
	}
	if len(tasks) > 0 {
		return state.Task{}, &state.LaunchRefused{Reason: "ConflictException: the launch's id is another task's: " + tasks[0].ARN}
	}
	return state.Task{}, f.explain(conflict, doing+": ECS does not show it yet")
}

// Stop stops a task. See state.Fleet.
func (f *Fleet) Stop(ctx context.Context, arn, reason string) error {
	in := &ecs.StopTaskInput{Task: aws.String(arn), Reason: aws.String(reason)}
	if f.cfg.Cluster != "" {
		in.Cluster = aws.String(f.cfg.Cluster)
	}
	if _, err := call(ctx, f, opStop, f.cfg.Client.StopTask, in); err != nil && !missingTask(err) {
		return f.explain(err, "stopping task "+arn)
	}
	return nil
}
