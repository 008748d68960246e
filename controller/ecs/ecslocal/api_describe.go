package ecslocal

import (
	"regexp"
	"strings"
	"time"
)

// maxDescribe is how many tasks one DescribeTasks takes.
const maxDescribe = 100

type describeTasksRequest struct {
	Cluster string   `json:"cluster"`
	Tasks   []string `json:"tasks"`
	Include []string `json:"include"`
}

type describeTasksResponse struct {
	Tasks    []taskShape `json:"tasks"`
	Failures []failure   `json:"failures"`
}

// describeTasks tells all about the named tasks; unknown ones are failures.
func (s *Server) describeTasks(in describeTasksRequest, c Conditions) (any, error) {
	if len(in.Tasks) == 0 {
		return nil, invalid("Tasks cannot be empty.")
	}
	if len(in.Tasks) > maxDescribe {
		return nil, invalid("Tasks: want up to %d", maxDescribe)
	}
	tags := false
	for _, what := range in.Include {
		if what != "TAGS" {
			return nil, invalid("include: %q is not TAGS", what)
		}
		tags = true
	}
	for _, ref := range in.Tasks {
		if _, err := checkTaskRef(ref); err != nil {
			return nil, err
		}
	}
	if err := s.lockFor(in.Cluster); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	out := describeTasksResponse{Tasks: []taskShape{}, Failures: []failure{}}
	for _, ref := range in.Tasks {
		t := s.find(ref)
		if t == nil || c.unseen(t, now) {
			out.Failures = append(out.Failures, failure{ARN: ref, Reason: "MISSING"})
			continue
		}
		out.Tasks = append(out.Tasks, c.shown(t, s, tags, now))
	}
	return out, nil
}

var taskIDPattern = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f-]{36})$`)

// checkTaskRef gives the id in a task's id or ARN.
func checkTaskRef(ref string) (string, error) {
	id := ref
	if strings.HasPrefix(ref, "arn:") {
		parts := strings.SplitN(ref, ":", 6)
		path := strings.Split(parts[len(parts)-1], "/")
		if len(parts) != 6 || len(path) != 3 || path[0] != "task" {
			return "", invalid("Invalid identifier: %s is not the ARN of a task", ref)
		}
		id = path[2]
	}
	if !taskIDPattern.MatchString(id) {
		return "", invalid("taskId length should be one of [32,36]")
	}
	return id, nil
}

// find gives the task of that id or ARN, or nil. Call with s.mu held.
func (s *Server) find(ref string) *task {
	id, err := checkTaskRef(ref)
	if err != nil {
		return nil
	}
	t := s.tasks[id]
	if t == nil || (id != ref && t.arn != ref) {
		return nil
	}
	if t.status == stopped && time.Since(t.at.stopped) > s.cfg.Retention {
		return nil
	}
	return t
}

// unseen tells whether nobody sees the task yet.
func (c *Conditions) unseen(t *task, now time.Time) bool {
	return c.Unseen > 0 && now.Sub(t.at.created) < c.within(c.Unseen, "unseen", t.seq)
}

// stale tells whether the task still shows as it was before it was to stop.
func (c *Conditions) stale(t *task, now time.Time) bool {
	return c.Stale > 0 && t.before != nil && now.Sub(t.at.stopping) < c.within(c.Stale, "stale", t.seq)
}

// desired is the task's desired status, as it shows.
func (c *Conditions) desired(t *task, now time.Time) string {
	if c.stale(t, now) {
		return "RUNNING"
	}
	return t.desired
}

// shown is the task as it shows. Call with s.mu held.
func (c *Conditions) shown(t *task, s *Server, tags bool, now time.Time) taskShape {
	if c.stale(t, now) {
		return t.before.shape(s, tags)
	}
	return t.shape(s, tags)
}

// shape tells all about the task. Call with s.mu held.
func (t *task) shape(s *Server, tags bool) taskShape {
	out := taskShape{
		TaskARN:              t.arn,
		ClusterARN:           s.Cluster(),
		TaskDefinitionARN:    s.arn(t.definition()),
		AvailabilityZone:     s.cfg.Region + zoneSuffix,
		Overrides:            t.overrides,
		LastStatus:           t.status,
		DesiredStatus:        t.desired,
		HealthStatus:         "UNKNOWN",
		Group:                t.group,
		StartedBy:            t.startedBy,
		LaunchType:           t.launchType,
		CapacityProviderName: t.provider,
		PlatformVersion:      t.platform,
		StopCode:             t.stopCode,
		StoppedReason:        t.stoppedReason,
		Version:              t.version,
		CreatedAt:            timestamp{t.at.created},
		ConnectivityAt:       timestamp{t.at.connected},
		PullStartedAt:        timestamp{t.at.pullStarted},
		PullStoppedAt:        timestamp{t.at.pullStopped},
		StartedAt:            timestamp{t.at.started},
		StoppingAt:           timestamp{t.at.stopping},
		ExecutionStoppedAt:   timestamp{t.at.executionStopped},
		StoppedAt:            timestamp{t.at.stopped},
	}
	if tags {
		out.Tags = t.tags
	}
	attachment := attachmentShape{
		ID:      t.id,
		Type:    "ElasticNetworkInterface",
		Status:  "PRECREATED",
		Details: []keyValue{{"subnetId", t.subnet}},
	}
	container := containerShape{
		ContainerARN:      s.arn("container/" + s.cfg.Cluster + "/" + t.id + "/" + t.id),
		TaskARN:           t.arn,
		Name:              t.def.Container,
		LastStatus:        t.containerStatus(),
		ExitCode:          t.exitCode,
		Reason:            t.containerReason,
		NetworkInterfaces: []interfaceShape{},
	}
	if t.addr != "" {
		attachment.Status = "ATTACHED"
		attachment.Details = append(attachment.Details, keyValue{"networkInterfaceId", "eni-" + t.id[:17]}, keyValue{"privateIPv4Address", t.addr})
		container.NetworkInterfaces = append(container.NetworkInterfaces, interfaceShape{AttachmentID: t.id, PrivateIPv4Address: t.addr})
		out.Connectivity = "CONNECTED"
	}
	if t.status == stopped {
		attachment.Status = "DELETED"
	}
	out.Attachments = []attachmentShape{attachment}
	out.Containers = []containerShape{container}
	return out
}
