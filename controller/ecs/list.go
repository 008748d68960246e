package ecs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"golang.org/x/sync/errgroup"

	"github.com/wallcrawler/wallcrawler/state"
)

const (
	maxPage     = 100 // of ListTasks and of DescribeTasks
	maxPages    = 1000
	maxParallel = 4 // DescribeTasks at a time
)

// List gives the tasks that run or are to run, and the known ones. See state.Fleet.
func (f *Fleet) List(ctx context.Context, known ...string) ([]state.Task, error) {
	arns, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	return f.Describe(ctx, append(arns, known...)...)
}

// list gives the ARNs of the tasks that run or are to run. startedBy must be the only filter;
// that the desired status is RUNNING goes without saying.
func (f *Fleet) list(ctx context.Context) ([]string, error) {
	in := &ecs.ListTasksInput{StartedBy: aws.String(f.cfg.Deployment), MaxResults: aws.Int32(maxPage)}
	if f.cfg.Cluster != "" {
		in.Cluster = aws.String(f.cfg.Cluster)
	}
	var arns []string
	for range maxPages {
		out, err := read(ctx, f, opList, f.cfg.Client.ListTasks, in)
		if err != nil {
			return nil, f.explain(err, "listing tasks")
		}
		arns = append(arns, out.TaskArns...)
		if aws.ToString(out.NextToken) == "" {
			return arns, nil
		}
		in.NextToken = out.NextToken
	}
	return nil, fmt.Errorf("listing tasks: no end after %d pages", maxPages)
}

// Describe gives those of the tasks that are this deployment's, sorted by ARN. A task that
// ECS does not know is left out, and so is what cannot be a task of the cluster: a record
// with a wrong ARN must not blind us to all the others.
func (f *Fleet) Describe(ctx context.Context, arns ...string) ([]state.Task, error) {
	arns = slices.Clone(arns)
	slices.Sort(arns)
	arns = slices.Compact(arns)
	arns = slices.DeleteFunc(arns, func(arn string) bool { return !f.describable(arn) })

	batches := slices.Collect(slices.Chunk(arns, maxPage))
	found := make([][]state.Task, len(batches))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for i, batch := range batches {
		group.Go(func() (err error) {
			found[i], err = f.describe(ctx, batch)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	tasks := slices.Concat(found...)
	slices.SortFunc(tasks, func(a, b state.Task) int { return strings.Compare(a.ARN, b.ARN) })
	return tasks, nil
}

// describe asks for one batch.
func (f *Fleet) describe(ctx context.Context, arns []string) ([]state.Task, error) {
	in := &ecs.DescribeTasksInput{Tasks: arns, Include: []types.TaskField{types.TaskFieldTags}}
	if f.cfg.Cluster != "" {
		in.Cluster = aws.String(f.cfg.Cluster)
	}
	out, err := read(ctx, f, opDescribe, f.cfg.Client.DescribeTasks, in)
	if err != nil {
		return nil, f.explain(err, fmt.Sprintf("describing %d tasks", len(arns)))
	}
	var errs []error
	for _, failure := range out.Failures {
		if reason := aws.ToString(failure.Reason); reason != "MISSING" {
			errs = append(errs, fmt.Errorf("describing task %s: %s %s", aws.ToString(failure.Arn), reason, aws.ToString(failure.Detail)))
		}
	}
	var tasks []state.Task
	for i := range out.Tasks {
		if task, ours := f.task(&out.Tasks[i]); ours {
			tasks = append(tasks, task)
		}
	}
	return tasks, errors.Join(errs...)
}

// describable tells whether the ARN is that of a task in the fleet's cluster. ARNs of the old
// format do not name the cluster, and pass.
func (f *Fleet) describable(arn string) bool {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "ecs" {
		return false
	}
	path := strings.Split(parts[5], "/")
	if path[0] != "task" || len(path) < 2 || len(path) > 3 || path[len(path)-1] == "" {
		return false
	}
	cluster := f.cfg.Cluster[strings.LastIndexByte(f.cfg.Cluster, '/')+1:]
	if cluster == "" {
		cluster = "default"
	}
	return len(path) == 2 || path[1] == cluster
}

// task reads a task of ECS, and tells whether it is this deployment's.
func (f *Fleet) task(t *types.Task) (task state.Task, ours bool) {
	task = state.Task{
		ARN:           aws.ToString(t.TaskArn),
		ContainerID:   containerID(t),
		LastStatus:    aws.ToString(t.LastStatus),
		DesiredStatus: aws.ToString(t.DesiredStatus),
		StopCode:      string(t.StopCode),
		StoppedReason: aws.ToString(t.StoppedReason),
		Addr:          address(t),
		Definition:    aws.ToString(t.TaskDefinitionArn),
		CreatedAt:     moment(t.CreatedAt),
		StartedAt:     moment(t.StartedAt),
		StoppedAt:     moment(t.StoppedAt),
	}
	return task, aws.ToString(t.StartedBy) == f.cfg.Deployment
}

// containerID gives the CONTAINER_ID that the task was started with.
func containerID(t *types.Task) string {
	if t.Overrides == nil {
		return ""
	}
	for _, o := range t.Overrides.ContainerOverrides {
		for _, v := range o.Environment {
			if aws.ToString(v.Name) == envContainer {
				return aws.ToString(v.Value)
			}
		}
	}
	return ""
}

// address gives the task's private IPv4 address: its network interface's, which is known
// first, or a container's.
func address(t *types.Task) string {
	for _, a := range t.Attachments {
		for _, d := range a.Details {
			if aws.ToString(d.Name) == "privateIPv4Address" && aws.ToString(d.Value) != "" {
				return aws.ToString(d.Value)
			}
		}
	}
	for _, c := range t.Containers {
		for _, n := range c.NetworkInterfaces {
			if aws.ToString(n.PrivateIpv4Address) != "" {
				return aws.ToString(n.PrivateIpv4Address)
			}
		}
	}
	return ""
}

// moment is zero for what has not happened.
func moment(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
