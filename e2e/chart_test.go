package e2e

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// manifest is what this test reads of an object of the chart.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Args []string
					Env  []struct{ Name, Value string }
					// All keys of these become variables.
					EnvFrom []struct {
						SecretRef struct{ Name string } `yaml:"secretRef"`
					} `yaml:"envFrom"`
				}
			}
		}
	}
	StringData map[string]string `yaml:"stringData"`
}

// readChart reads what charts/test proves to be the chart's rendering.
func readChart(t *testing.T) map[string]manifest {
	t.Helper()
	file, err := os.Open("../charts/test/golden/trial.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	objects := map[string]manifest{}
	for in := yaml.NewDecoder(file); ; {
		var m manifest
		if err := in.Decode(&m); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		objects[m.Kind+" "+m.Metadata.Name] = m
	}
}

// TestTheChartsEnvironment starts serve with the arguments and the environment that the chart
// gives to its container, and drives a browser. Only what names a place in the cluster or in
// AWS is put at its stand-in on this machine.
func TestTheChartsEnvironment(t *testing.T) {
	t.Parallel()
	objects := readChart(t)
	containers := objects["Deployment wc-wallcrawler"].Spec.Template.Spec.Containers
	if len(containers) != 1 || strings.Join(containers[0].Args, " ") != "serve" {
		t.Fatalf("the chart runs %+v", containers)
	}
	env := map[string]string{}
	for _, from := range containers[0].EnvFrom {
		maps.Copy(env, objects["Secret "+from.SecretRef.Name].StringData)
	}
	for _, e := range containers[0].Env {
		env[e.Name] = e.Value
	}
	if env["REDIS_ENDPOINT"] != "wc-wallcrawler-redis:6379" || env["REPLICA_ADDR"] != "$(POD_IP):8080" || env["PORT"] != "8080" {
		t.Fatalf("the chart's environment is %v", env)
	}
	if objects["Service wc-wallcrawler-redis"].Kind == "" {
		t.Fatal("the Redis that the environment names is not there")
	}

	s := newService(t, serviceOptions{redis: startRedis(t, env["REDIS_PASSWORD"])})
	here := s.env // of the usual service: where the stand-ins are
	for _, name := range []string{"PORT", "LISTEN_HOST", "REGISTER_URL", "REDIS_ENDPOINT", "AWS_ENDPOINT_URL", "ECS_CLUSTER_NAME", "CONTAINER_PORT", "PATH", "HOME", "TMPDIR"} {
		env[name] = here[name]
	}
	env["POD_IP"] = "127.0.0.1"
	env["REPLICA_ADDR"] = net.JoinHostPort(env["POD_IP"], strconv.Itoa(s.port))
	env["REPLICA_ID"] = "wc-wallcrawler-5d4f8c9b7-abcde" // a pod's name
	s.env = env
	_, s.alice.key, _ = strings.Cut(env["API_KEYS"], ":")
	s.secrets = objects["Secret wc-wallcrawler-env"].StringData
	delete(s.secrets, "API_KEYS")
	s.secrets["key of alice"] = s.alice.key

	s.start(t)
	s.awaitReady(t)
	s.awaitContainer(t)
	driveChromedp(t, s, startSite(t))
}
