package ecs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The variables by which a container learns what it is.
const (
	envContainer   = "CONTAINER_ID"
	envRegister    = "PROXY_ENDPOINT"
	envMode        = "CONTAINER_MODE"
	envMaxSessions = "MAX_SESSIONS"
	envToken       = "CONTAINER_TOKEN"

	multiSession = "MULTI_SESSION"
)

// The tags of every task, by which a person can tell what it is.
const (
	tagDeployment = "wallcrawler:deployment"
	tagLaunch     = "wallcrawler:launch"
)

const (
	maxTags      = 50
	maxOverrides = 8192 // characters, as JSON
	maxSubnets   = 16
	maxGroups    = 5
)

var (
	deploymentPattern = regexp.MustCompile(`^[A-Za-z0-9/_-]{1,128}$`)
	launchPattern     = regexp.MustCompile(`^[!-~]{1,64}$`)
	variablePattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Validate says what is wrong with the configuration, all at once.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(c.Client == nil, "no ECS client")
	refuse(!deploymentPattern.MatchString(c.Deployment), "deployment %q: want up to 128 letters, digits, hyphens, slashes and underscores", c.Deployment)
	refuse(c.TaskDefinition == "", "no task definition: name the one that runs browser containers")
	refuse(c.LaunchType != "" && len(c.CapacityProviders) > 0, "both a launch type and capacity providers: give one of them")
	refuse(len(c.CapacityProviders) > 20, "%d capacity providers: want up to 20", len(c.CapacityProviders))
	refuse(len(c.Subnets) > maxSubnets, "%d subnets: want up to %d", len(c.Subnets), maxSubnets)
	refuse(len(c.SecurityGroups) > maxGroups, "%d security groups: want up to %d", len(c.SecurityGroups), maxGroups)
	refuse(len(c.Subnets) == 0 && (len(c.SecurityGroups) > 0 || c.AssignPublicIP), "security groups or a public address without a subnet: name the containers' subnets")
	refuse(len(c.Subnets) == 0 && (c.LaunchType == "FARGATE" || len(c.CapacityProviders) > 0 && strings.HasPrefix(c.CapacityProviders[0].Name, "FARGATE")), "no subnet: Fargate tasks need one")
	refuse(c.ContainerPort < 0 || c.ContainerPort > 65535, "container port %d: want 1 to 65535", c.ContainerPort)
	register, err := url.Parse(c.RegisterURL)
	refuse(err != nil || register.Host == "" || (register.Scheme != "http" && register.Scheme != "https"), "register URL: want http(s)://host…, where containers reach this service")
	refuse(len(c.Tags)+2 > maxTags, "%d tags: want up to %d besides our own", len(c.Tags), maxTags-2)
	for _, key := range slices.Sorted(maps.Keys(c.Tags)) {
		refuse(key == "" || strings.HasPrefix(key, "wallcrawler:") || strings.HasPrefix(strings.ToLower(key), "aws:"), "tag %q: want a name outside wallcrawler: and aws:", key)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Environment)) {
		refuse(!variablePattern.MatchString(name), "environment variable %q: want letters, digits and underscores", name)
		refuse(slices.Contains([]string{envContainer, envRegister, envMode, envMaxSessions, envToken}, name), "environment variable %s is set by this service: leave it out", name)
	}
	return errors.Join(errs...)
}

// input is the whole of a RunTask call but for the container's token. It is stored with the
// launch, so that a later process repeats the same call whatever its configuration: only add
// fields, and only such whose absence means what it meant before.
type input struct {
	Cluster           string             `json:"cluster,omitempty"`
	TaskDefinition    string             `json:"taskDefinition"`
	ClientToken       string             `json:"clientToken"`
	StartedBy         string             `json:"startedBy"`
	LaunchType        string             `json:"launchType,omitempty"`
	CapacityProviders []CapacityProvider `json:"capacityProviders,omitempty"`
	PlatformVersion   string             `json:"platformVersion,omitempty"`
	Subnets           []string           `json:"subnets,omitempty"`
	SecurityGroups    []string           `json:"securityGroups,omitempty"`
	AssignPublicIP    bool               `json:"assignPublicIp,omitempty"`
	Container         string             `json:"container"`
	Environment       []pair             `json:"environment"` // in the order of the call
	Tags              []pair             `json:"tags"`
}

type pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Prepare makes the stored input of the launch's RunTask.
func (f *Fleet) Prepare(launch string, maxSessions int) (json.RawMessage, int, error) {
	if err := f.cfg.Validate(); err != nil {
		return nil, 0, fmt.Errorf("preparing launch %s: %w", launch, err)
	}
	if !launchPattern.MatchString(launch) {
		return nil, 0, fmt.Errorf("preparing launch %q: want an id of up to 64 printable ASCII characters", launch)
	}
	if maxSessions < 1 {
		return nil, 0, fmt.Errorf("preparing launch %s: want at least one slot, not %d", launch, maxSessions)
	}
	in := input{
		Cluster:           f.cfg.Cluster,
		TaskDefinition:    f.cfg.TaskDefinition,
		ClientToken:       launch,
		StartedBy:         f.cfg.Deployment,
		LaunchType:        f.cfg.LaunchType,
		CapacityProviders: f.cfg.CapacityProviders,
		PlatformVersion:   f.cfg.PlatformVersion,
		Subnets:           f.cfg.Subnets,
		SecurityGroups:    f.cfg.SecurityGroups,
		AssignPublicIP:    f.cfg.AssignPublicIP,
		Container:         f.cfg.ContainerName,
		Environment: append([]pair{
			{envContainer, launch},
			{envRegister, f.cfg.RegisterURL},
			{envMode, multiSession},
			{envMaxSessions, strconv.Itoa(maxSessions)},
		}, sortedPairs(f.cfg.Environment)...),
		Tags: append([]pair{
			{tagDeployment, f.cfg.Deployment},
			{tagLaunch, launch},
		}, sortedPairs(f.cfg.Tags)...),
	}
	overrides, err := json.Marshal(in.overrides(f.token(launch)))
	if err != nil {
		return nil, 0, fmt.Errorf("preparing launch %s: %w", launch, err)
	}
	if len(overrides) > maxOverrides {
		return nil, 0, fmt.Errorf("preparing launch %s: its environment takes %d characters, ECS takes %d: put some of it into the task definition", launch, len(overrides), maxOverrides)
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, 0, fmt.Errorf("preparing launch %s: %w", launch, err)
	}
	return text, f.cfg.ContainerPort, nil
}

// Target names the task definition, and where its tasks run. See state.Fleet.
func (f *Fleet) Target() string {
	where := []string{f.cfg.LaunchType}
	for _, p := range f.cfg.CapacityProviders {
		where = append(where, p.Name)
	}
	return f.cfg.TaskDefinition + " on " + cmp.Or(strings.Trim(strings.Join(where, " "), " "), "the cluster's default")
}

// token gives the launch's token, or nothing.
func (f *Fleet) token(launch string) string {
	if f.cfg.Token == nil {
		return ""
	}
	return f.cfg.Token(launch)
}

// request makes the call of the stored input and the token. Its fields' order and content
// depend on nothing else: a different call under the same clientToken is a conflict.
func (in *input) request(token string) *ecs.RunTaskInput {
	out := &ecs.RunTaskInput{
		TaskDefinition: aws.String(in.TaskDefinition),
		ClientToken:    aws.String(in.ClientToken),
		StartedBy:      aws.String(in.StartedBy),
		Count:          aws.Int32(1),
		LaunchType:     types.LaunchType(in.LaunchType),
		Overrides:      in.overrides(token),
	}
	if in.Cluster != "" {
		out.Cluster = aws.String(in.Cluster)
	}
	if in.PlatformVersion != "" {
		out.PlatformVersion = aws.String(in.PlatformVersion)
	}
	for _, p := range in.CapacityProviders {
		out.CapacityProviderStrategy = append(out.CapacityProviderStrategy, types.CapacityProviderStrategyItem{
			CapacityProvider: aws.String(p.Name), Weight: p.Weight, Base: p.Base,
		})
	}
	if len(in.Subnets) > 0 {
		public := types.AssignPublicIpDisabled
		if in.AssignPublicIP {
			public = types.AssignPublicIpEnabled
		}
		out.NetworkConfiguration = &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{
			Subnets: in.Subnets, SecurityGroups: in.SecurityGroups, AssignPublicIp: public,
		}}
	}
	for _, t := range in.Tags {
		out.Tags = append(out.Tags, types.Tag{Key: aws.String(t.Name), Value: aws.String(t.Value)})
	}
	return out
}

func (in *input) overrides(token string) *types.TaskOverride {
	var env []types.KeyValuePair
	for _, v := range in.Environment {
		env = append(env, types.KeyValuePair{Name: aws.String(v.Name), Value: aws.String(v.Value)})
	}
	if token != "" {
		env = append(env, types.KeyValuePair{Name: aws.String(envToken), Value: aws.String(token)})
	}
	return &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String(in.Container), Environment: env}}}
}

// sortedPairs gives the map in the order of its names.
func sortedPairs(m map[string]string) []pair {
	var pairs []pair
	for _, name := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, pair{name, m[name]})
	}
	return pairs
}
