package e2e

import (
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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

// readChart reads what charts/test proves to be the chart's rendering of those values.
func readChart(t *testing.T, values string) map[string]manifest {
	t.Helper()
	file, err := os.Open("../charts/test/golden/" + values + ".yaml")
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

// podEnvironment is what the chart's container of the service gets: the values of its own, and all
// keys of the Secret that it names.
func podEnvironment(t *testing.T, objects map[string]manifest) map[string]string {
	t.Helper()
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
	return env
}

// placeHere puts what names a place in the cluster or in AWS at its stand-in on this machine, and
// nothing else. It fails the test if the chart does not say what is replaced.
func (s *service) placeHere(t *testing.T, env, there map[string]string) {
	t.Helper()
	there["REPLICA_ADDR"], there["PORT"], there["REGISTER_PORT"] = "$(POD_IP):8080", "8080", "8081"
	for name, want := range there {
		if env[name] != want {
			t.Fatalf("the chart's %s is %q, want %q", name, env[name], want)
		}
	}
	registerPort := strconv.Itoa(freePort(t))
	for _, name := range []string{"PORT", "LISTEN_HOST", "REDIS_ENDPOINT", "AWS_ENDPOINT_URL", "ECS_CLUSTER_NAME", "CONTAINER_PORT", "PATH", "HOME", "TMPDIR"} {
		env[name] = s.env[name] // of the usual service
	}
	env["POD_IP"] = "127.0.0.1"
	env["REPLICA_ADDR"] = net.JoinHostPort(env["POD_IP"], strconv.Itoa(s.port))
	env["REPLICA_ID"] = "wc-wallcrawler-5d4f8c9b7-abcde" // a pod's name
	env["REGISTER_PORT"], env["REGISTER_URL"] = registerPort, "http://127.0.0.1:"+registerPort
	s.env = env
}

// TestTheChartsEnvironment starts serve with the arguments and the environment that the chart
// gives to its container, and drives a browser.
func TestTheChartsEnvironment(t *testing.T) {
	t.Parallel()
	t.Run("trial", func(t *testing.T) {
		t.Parallel()
		objects := readChart(t, "trial")
		env := podEnvironment(t, objects)
		if objects["Service wc-wallcrawler-redis"].Kind == "" {
			t.Fatal("the Redis that the environment names is not there")
		}
		s := newService(t, serviceOptions{redis: startRedis(t, env["REDIS_PASSWORD"])})
		s.placeHere(t, env, map[string]string{"REDIS_ENDPOINT": "wc-wallcrawler-redis:6379", "REGISTER_URL": "http://wallcrawler.internal"})
		_, s.alice.key, _ = strings.Cut(env["API_KEYS"], ":")
		s.secrets = objects["Secret wc-wallcrawler-env"].StringData
		delete(s.secrets, "API_KEYS")
		s.secrets["key of alice"] = s.alice.key
		s.start(t)
		s.awaitReady(t)
		s.awaitContainer(t)
		driveChromedp(t, s, startSite(t))
	})
	t.Run("eks", func(t *testing.T) {
		t.Parallel()
		testEKS(t)
	})
}

// testEKS has what the values for EKS name: a cluster that speaks TLS, secrets in Secrets Manager, a
// collector of traces.
func testEKS(t *testing.T) {
	env := podEnvironment(t, readChart(t, "eks"))
	store := startTLSRedis(t, true, "") // the values have no password
	s := newService(t, serviceOptions{redis: store})
	s.secrets = map[string]string{"JWT_SECRET": "canary" + rand.Text(), "key of alice": s.alice.key}
	manager := startSecretsManager(t)
	manager.keep(env["JWT_SECRET_ARN"], s.secrets["JWT_SECRET"])
	manager.keep(env["API_KEYS_SECRET_ARN"], `{"API_KEYS":["`+s.alice.key+`"]}`)
	told := make(chan string, 100) // paths at which traces have come
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case told <- r.URL.Path:
		default:
		}
	}))
	t.Cleanup(collector.Close)

	s.placeHere(t, env, map[string]string{
		"REDIS_ENDPOINT": "wc.abc.cache.amazonaws.com", "REDIS_TLS_ENABLED": "true", "REDIS_CLUSTER": "true",
		"REGISTER_URL": "http://register.internal", "PUBLIC_URL": "https://browsers.example.com", "CONTAINER_CIDRS": "10.1.0.0/16",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.monitoring:4318",
	})
	env["PUBLIC_URL"], env["CONTAINER_CIDRS"], env["OTEL_EXPORTER_OTLP_ENDPOINT"] = s.url, s.network.String(), collector.URL
	env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = manager.URL
	env["SSL_CERT_FILE"] = store.authority // the system's roots, on this machine
	env["OTEL_BSP_SCHEDULE_DELAY"] = "100" // ms

	s.start(t)
	s.awaitReady(t)
	s.awaitContainer(t)
	driveChromedp(t, s, startSite(t))
	select {
	case path := <-told:
		if path != "/v1/traces" {
			t.Errorf("traces go to %s", path)
		}
	case <-time.After(time.Minute):
		t.Error("no trace has come to the collector")
	}
}
