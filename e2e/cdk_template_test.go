package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// cdkTemplate is a template that deploy/cdk keeps, whose tests prove it to be up to date.
type cdkTemplate struct {
	resources map[string]cdkResource // by logical id
	// here says what stands on this machine for what the template refers to: a pseudo
	// parameter, a logical id without its digest (Ref), or that and an attribute (Fn::GetAtt).
	here map[string]string
	// names are those in the template's texts that lead nowhere on this machine, and what
	// stands for them, in turn.
	names []string
}

type cdkResource struct {
	Type       string
	Properties map[string]any
}

func readCDK(t *testing.T, name string) *cdkTemplate {
	t.Helper()
	text, err := os.ReadFile("../deploy/cdk/golden/" + name + ".template.json")
	if err != nil {
		t.Fatal(err)
	}
	var whole struct{ Resources map[string]cdkResource }
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	return &cdkTemplate{resources: whole.Resources}
}

// digest is what CDK ends logical ids with.
var digest = regexp.MustCompile(`[0-9A-F]{8}$`)

// value resolves what CloudFormation would. What nobody has said fails the test.
func (c *cdkTemplate) value(t *testing.T, v any) string {
	t.Helper()
	refer := func(to string) string {
		t.Helper()
		id, attribute, _ := strings.Cut(to, ".")
		key := digest.ReplaceAllString(id, "")
		if attribute != "" {
			key += "." + attribute
		}
		found, known := c.here[key]
		if !known {
			t.Fatalf("the template refers to %s, which has no stand-in", key)
		}
		return found
	}
	switch v := v.(type) {
	case string:
		return strings.NewReplacer(c.names...).Replace(v)
	case map[string]any:
		if to, is := v["Ref"].(string); is {
			return refer(to)
		}
		if to, is := v["Fn::GetAtt"].([]any); is && len(to) == 2 {
			return refer(fmt.Sprint(to[0], ".", to[1]))
		}
		if join, is := v["Fn::Join"].([]any); is && len(join) == 2 {
			entries, _ := join[1].([]any)
			parts := make([]string, len(entries))
			for i, e := range entries {
				parts[i] = c.value(t, e)
			}
			return c.value(t, strings.Join(parts, fmt.Sprint(join[0])))
		}
	}
	t.Fatalf("cannot resolve %v", v)
	return ""
}

// only is the one resource of that type whose logical id is so, but for its digest.
func (c *cdkTemplate) only(t *testing.T, kind, id string) cdkResource {
	t.Helper()
	for full, r := range c.resources {
		if r.Type == kind && digest.ReplaceAllString(full, "") == id {
			return r
		}
	}
	t.Fatalf("the template has no %s %s", kind, id)
	return cdkResource{}
}

// cdkContainer is what the template says of a task's container.
type cdkContainer struct {
	command []string
	env     map[string]string
	secrets map[string]string // variable → ARN, whose secret ECS puts into the environment
}

func (c *cdkTemplate) container(t *testing.T, task string) cdkContainer {
	t.Helper()
	b, err := json.Marshal(c.only(t, "AWS::ECS::TaskDefinition", task).Properties["ContainerDefinitions"])
	if err != nil {
		t.Fatal(err)
	}
	var containers []struct {
		Command     []string
		Environment []struct {
			Name  string
			Value any
		}
		Secrets []struct {
			Name      string
			ValueFrom any
		}
	}
	if err := json.Unmarshal(b, &containers); err != nil || len(containers) != 1 {
		t.Fatalf("%s has %d containers: %v", task, len(containers), err)
	}
	out := cdkContainer{command: containers[0].Command, env: map[string]string{}, secrets: map[string]string{}}
	for _, e := range containers[0].Environment {
		out.env[e.Name] = c.value(t, e.Value)
	}
	for _, s := range containers[0].Secrets {
		out.secrets[s.Name] = c.value(t, s.ValueFrom)
	}
	return out
}

// cdkFunction is a Lambda function of the template.
type cdkFunction struct {
	Handler string            `json:"handler"` // file.function
	Env     map[string]string `json:"env"`
}

// functions lists them by the name that deploy/cdk gives them.
func (c *cdkTemplate) functions(t *testing.T) map[string]cdkFunction {
	t.Helper()
	found := map[string]cdkFunction{}
	for id, r := range c.resources {
		if r.Type != "AWS::Lambda::Function" {
			continue
		}
		environment, _ := r.Properties["Environment"].(map[string]any)
		variables, _ := environment["Variables"].(map[string]any)
		f := cdkFunction{Handler: c.value(t, r.Properties["Handler"]), Env: map[string]string{}}
		for name, v := range variables {
			f.Env[name] = c.value(t, v)
		}
		found[strings.TrimPrefix(digest.ReplaceAllString(id, ""), "Functions")] = f
	}
	return found
}

// users lists Redis's: name → rules.
func (c *cdkTemplate) users(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, r := range c.resources {
		if r.Type == "AWS::ElastiCache::User" {
			found[c.value(t, r.Properties["UserName"])] = c.value(t, r.Properties["AccessString"])
		}
	}
	return found
}

// metrics lists the names of our own metrics that the template scales and warns by.
func (c *cdkTemplate) metrics() []string {
	var found []string
	for _, r := range c.resources {
		p := r.Properties
		if tracking, is := p["TargetTrackingScalingPolicyConfiguration"].(map[string]any); is {
			p, _ = tracking["CustomizedMetricSpecification"].(map[string]any)
		}
		if name, is := p["MetricName"].(string); is && p["Namespace"] == "WallCrawler" {
			found = append(found, name)
		}
	}
	return found
}
