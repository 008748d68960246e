package ecslocal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxCount         = 10
	maxOverrides     = 8192 // characters, as JSON
	maxTags          = 50
	maxProviders     = 20
	maxSubnets       = 16
	maxGroups        = 5
	tokenTTL         = 24 * time.Hour
	zoneSuffix       = "a"
	defaultPlatform  = "1.4.0"
	defaultLaunch    = "FARGATE"
	reservedTagStart = "aws:"
)

var (
	tokenPattern     = regexp.MustCompile(`^[!-~]{1,64}$`)
	startedByPattern = regexp.MustCompile(`^[A-Za-z0-9/_-]{1,128}$`)
)

type runTaskRequest struct {
	Cluster                  string           `json:"cluster"`
	TaskDefinition           string           `json:"taskDefinition"`
	ClientToken              string           `json:"clientToken"`
	Count                    *int             `json:"count"`
	Group                    string           `json:"group"`
	StartedBy                string           `json:"startedBy"`
	LaunchType               string           `json:"launchType"`
	PlatformVersion          string           `json:"platformVersion"`
	PropagateTags            string           `json:"propagateTags"`
	EnableECSManagedTags     bool             `json:"enableECSManagedTags"`
	EnableExecuteCommand     bool             `json:"enableExecuteCommand"`
	CapacityProviderStrategy []providerChoice `json:"capacityProviderStrategy"`
	NetworkConfiguration     *networkChoice   `json:"networkConfiguration"`
	Overrides                taskOverride     `json:"overrides"`
	Tags                     []tag            `json:"tags"`
}

type providerChoice struct {
	CapacityProvider string `json:"capacityProvider"`
	Base             int    `json:"base"`
	Weight           int    `json:"weight"`
}

type networkChoice struct {
	AwsvpcConfiguration *struct {
		Subnets        []string `json:"subnets"`
		SecurityGroups []string `json:"securityGroups"`
		AssignPublicIP string   `json:"assignPublicIp"`
	} `json:"awsvpcConfiguration"`
}

type runTaskResponse struct {
	Tasks    []taskShape `json:"tasks"`
	Failures []failure   `json:"failures"`
}

// idempotent is what a clientToken stands for.
type idempotent struct {
	request  string // the call, but for the token
	tasks    []*task
	failures []failure
	since    time.Time
}

// runTask starts tasks. The same clientToken again gives the same tasks, as they are now, and
// the same failures.
func (s *Server) runTask(in runTaskRequest, fault Fault, c Conditions) (any, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	family, def, err := s.definition(in.TaskDefinition)
	if err != nil {
		return nil, err
	}
	for _, o := range in.Overrides.ContainerOverrides {
		if o.Name != def.Container {
			return nil, invalid("Override for container named %s is not a container in the TaskDefinition.", o.Name)
		}
	}

	if err := s.lockFor(in.Cluster); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	s.sweep(now)
	token, request, err := in.identity()
	if err != nil {
		return nil, err
	}
	done := s.tokens[token]
	if done != nil && done.request != request {
		conflict := &exception{Type: "ConflictException", Message: "The clientToken was used before with other parameters."}
		for _, t := range done.tasks {
			conflict.ResourceIDs = append(conflict.ResourceIDs, t.arn)
		}
		return nil, conflict
	}
	if done == nil {
		done = &idempotent{request: request, since: now}
		if fault.FailureReason != "" {
			done.failures = []failure{{Reason: fault.FailureReason, Detail: fault.FailureDetail}}
		} else {
			for range *in.Count {
				s.attempts++
				subnet, provider := in.place(s.attempts)
				if c.lacks(subnet, provider, s.attempts) {
					done.failures = append(done.failures, noRoom())
					continue
				}
				done.tasks = append(done.tasks, s.begin(family, def, &in, placement{subnet, provider, now}))
			}
		}
		if token != "" {
			s.tokens[token] = done
		}
	}
	out := runTaskResponse{Tasks: []taskShape{}, Failures: done.failures}
	for _, t := range done.tasks {
		out.Tasks = append(out.Tasks, t.shape(s, true))
	}
	if out.Failures == nil {
		out.Failures = []failure{}
	}
	return out, nil
}

// identity splits the call into its token and the rest.
func (in runTaskRequest) identity() (token, rest string, err error) {
	token, in.ClientToken = in.ClientToken, ""
	text, err := json.Marshal(in)
	return token, string(text), err
}

// check refuses what ECS refuses, and fills in the defaults.
func (in *runTaskRequest) check() error {
	if in.ClientToken != "" && !tokenPattern.MatchString(in.ClientToken) {
		return invalid("clientToken: want up to 64 characters in the range of 33-126")
	}
	if in.StartedBy != "" && !startedByPattern.MatchString(in.StartedBy) {
		return invalid("startedBy: want up to 128 letters, numbers, hyphens, slashes and underscores")
	}
	if in.Count == nil {
		in.Count = new(1)
	}
	if *in.Count < 1 || *in.Count > maxCount {
		return invalid("count: want 1 to %d", maxCount)
	}
	switch in.LaunchType {
	case "", "EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES":
	default:
		return invalid("launchType %q is none", in.LaunchType)
	}
	if in.LaunchType != "" && len(in.CapacityProviderStrategy) > 0 {
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	}
	if len(in.CapacityProviderStrategy) > maxProviders {
		return invalid("capacityProviderStrategy: want up to %d capacity providers", maxProviders)
	}
	for _, p := range in.CapacityProviderStrategy {
		if p.CapacityProvider == "" || p.Weight < 0 || p.Weight > 1000 || p.Base < 0 || p.Base > 100000 {
			return invalid("capacityProviderStrategy: want a capacityProvider, a weight of 0 to 1000 and a base of 0 to 100000")
		}
	}
	switch in.PropagateTags {
	case "", "NONE", "TASK_DEFINITION":
	default:
		return invalid("propagateTags %q is not for RunTask", in.PropagateTags)
	}
	if strings.HasPrefix(in.Group, "service:") {
		return invalid("group: service: is reserved")
	}
	if err := in.NetworkConfiguration.check(); err != nil {
		return err
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	overrides, err := json.Marshal(in.Overrides)
	if err != nil {
		return invalid("overrides: %v", err)
	}
	if len(overrides) > maxOverrides {
		return invalid("Container Overrides length must be at most %d", maxOverrides)
	}
	for _, o := range in.Overrides.ContainerOverrides {
		for _, v := range o.Environment {
			if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.Contains(v.Value, "\x00") {
				return invalid("overrides: an environment variable has no name, or one that no process can have")
			}
		}
	}
	return nil
}

func (n *networkChoice) check() error {
	if n == nil || n.AwsvpcConfiguration == nil {
		return invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	}
	vpc := n.AwsvpcConfiguration
	if len(vpc.Subnets) == 0 {
		return invalid("subnets can not be empty.")
	}
	if len(vpc.Subnets) > maxSubnets || len(vpc.SecurityGroups) > maxGroups {
		return invalid("networkConfiguration: want up to %d subnets and %d security groups", maxSubnets, maxGroups)
	}
	switch vpc.AssignPublicIP {
	case "", "ENABLED", "DISABLED":
		return nil
	default:
		return invalid("assignPublicIp %q is neither ENABLED nor DISABLED", vpc.AssignPublicIP)
	}
}

func checkTags(tags []tag) error {
	if len(tags) > maxTags {
		return invalid("tags: want up to %d", maxTags)
	}
	seen := make(map[string]bool)
	for _, t := range tags {
		switch {
		case t.Key == "" || len([]rune(t.Key)) > 128 || len([]rune(t.Value)) > 256:
			return invalid("tags: want keys of 1 to 128 characters and values of up to 256")
		case strings.HasPrefix(strings.ToLower(t.Key), reservedTagStart):
			return invalid("tags: the prefix aws: is reserved")
		case seen[t.Key]:
			return invalid("tags: the key %s is there twice", t.Key)
		}
		seen[t.Key] = true
	}
	return nil
}

// definition resolves family, family:revision or an ARN.
func (s *Server) definition(name string) (family string, def Definition, err error) {
	short, isARN := strings.CutPrefix(name, s.arn("task-definition/"))
	if name == "" || (!isARN && strings.HasPrefix(name, "arn:")) {
		return "", Definition{}, clientError("TaskDefinition not found.")
	}
	family, revision, exact := strings.Cut(short, ":")
	def, ok := s.cfg.Definitions[family]
	if !ok || (exact && revision != strconv.Itoa(def.Revision)) {
		return "", Definition{}, clientError("TaskDefinition not found.")
	}
	return family, def, nil
}

// place gives where the n-th task goes, as ECS picks it: it spreads over the subnets, and over
// the capacity providers by their weights, and does not look for room first.
func (in *runTaskRequest) place(n uint64) (subnet, provider string) {
	subnets := in.NetworkConfiguration.AwsvpcConfiguration.Subnets
	subnet = subnets[(n-1)%uint64(len(subnets))]
	total := 0
	for _, p := range in.CapacityProviderStrategy {
		total += p.Weight
	}
	switch {
	case len(in.CapacityProviderStrategy) == 0:
		return subnet, cmp.Or(in.LaunchType, defaultLaunch)
	case total == 0:
		return subnet, in.CapacityProviderStrategy[0].CapacityProvider
	}
	at := int((n - 1) % uint64(total))
	for _, p := range in.CapacityProviderStrategy {
		if at -= p.Weight; at < 0 {
			provider = p.CapacityProvider
			break
		}
	}
	return subnet, provider
}

// placement is where and when a task begins.
type placement struct {
	subnet, provider string
	now              time.Time
}

// begin makes a task and sets it going. Call with s.mu held.
func (s *Server) begin(family string, def Definition, in *runTaskRequest, at placement) *task {
	s.seq++
	t := &task{
		id:         newID(),
		seq:        s.seq,
		family:     family,
		def:        def,
		group:      cmp.Or(in.Group, "family:"+family),
		startedBy:  in.StartedBy,
		launchType: in.LaunchType,
		overrides:  in.Overrides,
		subnet:     at.subnet,
		stop:       make(chan struct{}),
		tags:       in.Tags,
		status:     "PROVISIONING",
		desired:    "RUNNING",
		version:    1,
	}
	if len(in.CapacityProviderStrategy) > 0 {
		t.provider = at.provider
	}
	if t.launchType == "" && (t.provider == "" || strings.HasPrefix(t.provider, "FARGATE")) {
		t.launchType = defaultLaunch
	}
	if t.launchType == defaultLaunch {
		t.platform = cmp.Or(in.PlatformVersion, defaultPlatform)
		if t.platform == "LATEST" {
			t.platform = defaultPlatform
		}
	}
	t.arn = s.arn("task/" + s.cfg.Cluster + "/" + t.id)
	t.metadataID = fmt.Sprintf("%s-%010d", t.id, t.seq)
	t.at.created = at.now
	s.tasks[t.id] = t
	s.order = append(s.order, t)
	s.living.Go(func() { s.live(t) })
	return t
}

// sweep forgets tasks that stopped long ago and tokens that are no longer kept. Call with s.mu held.
func (s *Server) sweep(now time.Time) {
	if now.Sub(s.swept) < min(time.Minute, s.cfg.Retention/2) {
		return
	}
	s.swept = now
	kept := make([]*task, 0, len(s.order))
	for _, t := range s.order {
		if t.status == stopped && now.Sub(t.at.stopped) > s.cfg.Retention {
			delete(s.tasks, t.id)
			continue
		}
		kept = append(kept, t)
	}
	s.order = kept
	for token, done := range s.tokens {
		if now.Sub(done.since) > tokenTTL {
			delete(s.tokens, token)
		}
	}
}
