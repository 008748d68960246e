// Package ecs is the fleet of browser containers as tasks of an ECS cluster: state.Fleet on
// RunTask, StopTask, ListTasks and DescribeTasks. Every task carries the deployment's name in
// startedBy, and tasks without it do not exist for this package.
//
// It must not decide anything: which tasks are to run or to stop is the controller's.
package ecs

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller/budget"
	"github.com/wallcrawler/wallcrawler/state"
)

// Client is the part of the SDK's client that is used here; *ecs.Client is one.
type Client interface {
	RunTask(ctx context.Context, in *ecs.RunTaskInput, opts ...func(*ecs.Options)) (*ecs.RunTaskOutput, error)
	StopTask(ctx context.Context, in *ecs.StopTaskInput, opts ...func(*ecs.Options)) (*ecs.StopTaskOutput, error)
	ListTasks(ctx context.Context, in *ecs.ListTasksInput, opts ...func(*ecs.Options)) (*ecs.ListTasksOutput, error)
	DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput, opts ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error)
}

// Config says where and how tasks run. Those fields that shape RunTask go into a launch's
// prepared input; changing them changes later launches only.
type Config struct {
	Client     Client
	Cluster    string // name or ARN
	Deployment string // whose tasks these are; their startedBy

	TaskDefinition    string // family, family:revision or ARN
	LaunchType        string // FARGATE …; excludes CapacityProviders
	CapacityProviders []CapacityProvider
	PlatformVersion   string
	Subnets           []string
	SecurityGroups    []string
	AssignPublicIP    bool
	Tags              map[string]string

	ContainerName string // default BrowserContainer
	ContainerPort int    // where it listens; default 8080
	RegisterURL   string // where it registers
	Environment   map[string]string

	// Token gives the secret by which the launch's container registers. It must be the same
	// at every call for a launch, and is in no prepared input. Nil: containers get none.
	Token func(launch string) string

	CallTimeout time.Duration // of one call with its retries; default 10 s
	Log         *slog.Logger  // default: none
	Registerer  prometheus.Registerer
}

// CapacityProvider is one entry of a capacity provider strategy.
type CapacityProvider struct {
	Name   string `json:"name"`
	Weight int32  `json:"weight,omitempty"`
	Base   int32  `json:"base,omitempty"`
}

const (
	defaultContainer   = "BrowserContainer"
	defaultPort        = 8080
	defaultCallTimeout = 10 * time.Second
)

// Fleet is a deployment's tasks. It is safe for concurrent use, and keeps nothing but what its
// reads may still cost.
type Fleet struct {
	cfg     Config // set once in New, defaults filled in
	log     *slog.Logger
	metrics *metrics
	reads   reads
}

var _ state.Fleet = (*Fleet)(nil)

// New makes the fleet. It calls nobody; see Config.Validate for what Prepare would refuse.
func New(cfg Config) *Fleet {
	if cfg.ContainerName == "" {
		cfg.ContainerName = defaultContainer
	}
	if cfg.ContainerPort == 0 {
		cfg.ContainerPort = defaultPort
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = defaultCallTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Fleet{
		cfg: cfg, log: cfg.Log, metrics: newMetrics(cfg.Registerer),
		reads: reads{bucket: budget.NewBucket(budget.Read, time.Now())},
	}
}

// method is an operation of the SDK's client.
type method[In, Out any] = func(context.Context, In, ...func(*ecs.Options)) (Out, error)

// call makes one call of the API, bounded in time, counted and timed.
func call[In, Out any](ctx context.Context, f *Fleet, op string, do method[In, Out], in In) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.CallTimeout)
	defer cancel()
	begin := time.Now()
	out, err := do(ctx, in)
	f.metrics.seconds.WithLabelValues(op).Observe(time.Since(begin).Seconds())
	f.metrics.calls.WithLabelValues(op, resultOf(out, err)).Inc()
	return out, err
}
