// Package charttest lints, renders and checks the chart. It is a module of its own, so that
// Helm and Kubernetes' types are no dependencies of the program.
package charttest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	scaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what is rendered to golden/")

const (
	chart  = "../wallcrawler"
	newest = "1.34.0" // the Kubernetes of the golden files
)

var helm string // Helm's binary, of the version in go.mod

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "charttest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	helm = filepath.Join(dir, "helm")
	if out, err := exec.Command("go", "build", "-o", helm, "helm.sh/helm/v3/cmd/helm").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building helm: %v\n%s", err, out)
		return 1
	}
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		if err := os.Setenv(name, dir); err != nil {
			return 1
		}
	}
	return m.Run()
}

func template(t *testing.T, kube string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), helm, append([]string{"template", "wc", chart, "--namespace", "browsers", "--kube-version", kube}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said.String())
	}
	return out.String(), nil
}

// matrix is every file in values/.
func matrix(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("values/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("values: %v, %v", files, err)
	}
	return files
}

func TestLint(t *testing.T) {
	for _, file := range matrix(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), helm, "lint", "--strict", "--kube-version", newest, chart, "-f", file).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestGolden(t *testing.T) {
	for _, file := range matrix(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			got, err := template(t, newest, "-f", file)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("golden", filepath.Base(file))
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not what is rendered now: look at the difference after `go test ./... -update` in charts/test", golden)
			}
		})
	}
}

// object is what all have.
type object struct {
	v1.TypeMeta   `json:",inline"`
	v1.ObjectMeta `json:"metadata"`
}

// Resources of the Prometheus operator, as far as the chart uses them.
type serviceMonitor struct {
	object `json:",inline"`
	Spec   struct {
		Selector  v1.LabelSelector
		Endpoints []struct {
			Port, Path, Interval string
			Relabelings          []struct{ TargetLabel, Replacement string }
		}
	}
}

type prometheusRule struct {
	object `json:",inline"`
	Spec   struct {
		Groups []struct {
			Name, Interval string
			Rules          []struct {
				Record, Alert, Expr, For string
				Labels, Annotations      map[string]string
			}
		}
	}
}

// rendered are the chart's objects, decoded by Kubernetes' types; fields that these do not have
// fail the test.
type rendered struct {
	all         []object
	deployments map[string]*apps.Deployment
	services    map[string]*core.Service
	accounts    map[string]*core.ServiceAccount
	secrets     map[string]*core.Secret
	pods        map[string]*core.Pod
	ingresses   map[string]*networking.Ingress
	policies    map[string]*networking.NetworkPolicy
	budgets     map[string]*policy.PodDisruptionBudget
	scalers     map[string]*scaling.HorizontalPodAutoscaler
	monitors    map[string]*serviceMonitor
	rules       map[string]*prometheusRule
}

func take[T any](t *testing.T, text string, into *map[string]*T, name string) {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), v); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if *into == nil {
		*into = map[string]*T{}
	}
	(*into)[name] = v
}

func decode(t *testing.T, text string) rendered {
	t.Helper()
	var r rendered
	seen := map[string]bool{}
	for _, part := range regexp.MustCompile(`(?m)^---\n`).Split(text, -1) {
		var o object
		if err := yaml.Unmarshal([]byte(part), &o); err != nil {
			t.Fatalf("%v\n%s", err, part)
		}
		if o.Kind == "" {
			continue
		}
		key := o.Kind + " " + o.Name
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
		r.all = append(r.all, o)
		switch o.APIVersion + " " + o.Kind {
		case "apps/v1 Deployment":
			take(t, part, &r.deployments, o.Name)
		case "v1 Service":
			take(t, part, &r.services, o.Name)
		case "v1 ServiceAccount":
			take(t, part, &r.accounts, o.Name)
		case "v1 Secret":
			take(t, part, &r.secrets, o.Name)
		case "v1 Pod":
			take(t, part, &r.pods, o.Name)
		case "networking.k8s.io/v1 Ingress":
			take(t, part, &r.ingresses, o.Name)
		case "networking.k8s.io/v1 NetworkPolicy":
			take(t, part, &r.policies, o.Name)
		case "policy/v1 PodDisruptionBudget":
			take(t, part, &r.budgets, o.Name)
		case "autoscaling/v2 HorizontalPodAutoscaler":
			take(t, part, &r.scalers, o.Name)
		case "monitoring.coreos.com/v1 ServiceMonitor":
			take(t, part, &r.monitors, o.Name)
		case "monitoring.coreos.com/v1 PrometheusRule":
			take(t, part, &r.rules, o.Name)
		default:
			t.Errorf("%s %s: an object of a kind that this test does not know", o.APIVersion, key)
		}
	}
	return r
}

func TestObjectsAreValidAndBelongTogether(t *testing.T) {
	for _, kube := range []string{"1.27.0", "1.30.0", newest} {
		for _, file := range matrix(t) {
			t.Run(kube+" "+filepath.Base(file), func(t *testing.T) {
				text, err := template(t, kube, "-f", file)
				if err != nil {
					t.Fatal(err)
				}
				check(t, kube, decode(t, text))
			})
		}
	}
}

// check proves what must hold of every rendering.
func check(t *testing.T, kube string, r rendered) {
	service := r.deployments["wc-wallcrawler"]
	if service == nil {
		t.Fatal("there is no Deployment of the service")
	}
	selects := func(what string, selector map[string]string, want string) {
		t.Helper()
		for name, d := range r.deployments {
			if got := labels.SelectorFromSet(selector).Matches(labels.Set(d.Spec.Template.Labels)); got != (name == want) {
				t.Errorf("%s selects pods of %s: %v", what, name, got)
			}
		}
		for name, p := range r.pods {
			if labels.SelectorFromSet(selector).Matches(labels.Set(p.Labels)) {
				t.Errorf("%s selects the pod %s", what, name)
			}
		}
	}
	for name, d := range r.deployments {
		selects("Deployment "+name, d.Spec.Selector.MatchLabels, name)
	}
	for name, s := range r.services {
		want := "wc-wallcrawler"
		if strings.HasSuffix(name, "-redis") {
			want = name
		}
		selects("Service "+name, s.Spec.Selector, want)
		for _, port := range s.Spec.Ports {
			if !slices.ContainsFunc(r.deployments[want].Spec.Template.Spec.Containers[0].Ports, func(p core.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
				t.Errorf("Service %s: no container has the port %s", name, port.TargetPort.StrVal)
			}
		}
	}
	for name, b := range r.budgets {
		selects("PodDisruptionBudget "+name, b.Spec.Selector.MatchLabels, "wc-wallcrawler")
	}
	for name, m := range r.monitors {
		n := 0
		for _, s := range r.services {
			if labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("ServiceMonitor %s selects %d services: each replica would be scraped as often", name, n)
		}
	}
	for name, s := range r.scalers {
		if service.Spec.Replicas != nil {
			t.Errorf("HorizontalPodAutoscaler %s: the Deployment has a number of replicas, too; they would fight", name)
		}
		if s.Spec.ScaleTargetRef.Name != service.Name {
			t.Errorf("HorizontalPodAutoscaler %s scales %s", name, s.Spec.ScaleTargetRef.Name)
		}
	}
	for name, i := range r.ingresses {
		for _, p := range i.Spec.Rules[0].HTTP.Paths {
			if s := r.services[p.Backend.Service.Name]; s == nil || s.Spec.Ports[0].Name != p.Backend.Service.Port.Name {
				t.Errorf("Ingress %s: %s leads nowhere", name, p.Path)
			}
		}
	}
	checkPod(t, kube, r, service.Spec.Template.Spec)
	for _, d := range r.deployments {
		hardened(t, d.Name, d.Spec.Template.Spec)
	}
	for _, p := range r.pods {
		hardened(t, p.Name, p.Spec)
	}
}

// checkPod proves that a pod of the service gets its time to drain, and its secrets by reference.
func checkPod(t *testing.T, kube string, r rendered, pod core.PodSpec) {
	c := pod.Containers[0]
	env := map[string]string{}
	for _, e := range c.Env {
		if _, twice := env[e.Name]; twice {
			t.Errorf("%s is set twice", e.Name)
		}
		env[e.Name] = e.Value
	}
	sleep := int64(0)
	if c.Lifecycle != nil {
		sleep = c.Lifecycle.PreStop.Sleep.Seconds
	}
	if (sleep > 0) != (kube != "1.27.0") {
		t.Errorf("preStop sleeps %d s on Kubernetes %s", sleep, kube)
	}
	var unready, drain int64
	if _, err := fmt.Sscanf(env["DRAIN_UNREADY"]+" "+env["DRAIN_TIMEOUT"], "%ds %ds", &unready, &drain); err != nil {
		t.Fatal(err)
	}
	if least := sleep + unready + drain + 5; *pod.TerminationGracePeriodSeconds < least {
		t.Errorf("a pod is killed after %d s, and may take %d", *pod.TerminationGracePeriodSeconds, least)
	}
	if c.ReadinessProbe.HTTPGet.Path != "/ready" || c.LivenessProbe.HTTPGet.Path != "/health" {
		t.Error("readiness is /ready, life is /health")
	}
	if r.accounts[pod.ServiceAccountName] == nil {
		t.Errorf("the account %s is not there", pod.ServiceAccountName)
	}
	for _, s := range r.secrets {
		for name, value := range s.StringData {
			if _, shown := env[name]; shown {
				t.Errorf("%s is in the pod's environment by value", name)
			}
			for key, text := range env {
				if strings.Contains(text, value) {
					t.Errorf("%s shows the secret %s", key, name)
				}
			}
		}
	}
}

// hardened proves what the restricted Pod Security Standard asks for, and a little more.
func hardened(t *testing.T, name string, pod core.PodSpec) {
	s := pod.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s may run as root, or without seccomp", name)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Errorf("%s gets a token for Kubernetes, which it does not need", name)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
			t.Errorf("%s: %s has more rights than it needs", name, c.Name)
		}
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"nothing set":              {nil, "missing: config.REGISTER_URL, config.ECS_CLUSTER_NAME, config.CONTAINER_TASK_DEF, config.AWS_REGION, config.REDIS_ENDPOINT (or redis.enabled)"},
		"a misspelt value":         {[]string{"-f", "values/small.yaml", "--set", "replica=2"}, "replica"},
		"a misspelt setting":       {[]string{"-f", "values/small.yaml", "--set", "config.MAX_CONTAINER=2"}, "config.MAX_CONTAINER: there is no such setting"},
		"a secret in config":       {[]string{"-f", "values/small.yaml", "--set", "config.JWT_SECRET=x"}, "config.JWT_SECRET is a secret: it belongs in secretEnv"},
		"a collector's token":      {[]string{"-f", "values/small.yaml", "--set", "config.OTEL_EXPORTER_OTLP_TRACES_HEADERS=x"}, "config.OTEL_EXPORTER_OTLP_TRACES_HEADERS is a secret: it belongs in secretEnv"},
		"traces by gRPC":           {[]string{"-f", "values/small.yaml", "--set", "config.OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, "config.OTEL_EXPORTER_OTLP_PROTOCOL: there is no such setting"},
		"the chart's setting":      {[]string{"-f", "values/small.yaml", "--set", "config.DRAIN_TIMEOUT=1s"}, "config.DRAIN_TIMEOUT is the chart's to set"},
		"a setting as a secret":    {[]string{"-f", "values/trial.yaml", "--set", "secretEnv.values.PUBLIC_URL=x"}, "secretEnv.values.PUBLIC_URL: there is no such secret setting"},
		"two sources of secrets":   {[]string{"-f", "values/trial.yaml", "--set", "secretEnv.existingSecret=x"}, "both set"},
		"no token secret":          {[]string{"-f", "values/trial.yaml", "--set", "secretEnv.values.JWT_SECRET=null"}, "no secret for session tokens"},
		"no keys":                  {[]string{"-f", "values/trial.yaml", "--set", "secretEnv.values.API_KEYS=null"}, "no API keys"},
		"a Redis without password": {[]string{"-f", "values/trial.yaml", "--set", "secretEnv.values.REDIS_PASSWORD=null"}, "redis.enabled needs a password"},
		"two Redis":                {[]string{"-f", "values/trial.yaml", "--set", "config.REDIS_ENDPOINT=x"}, "config.REDIS_ENDPOINT and redis.enabled are both set"},
		"a long drain":             {[]string{"-f", "values/small.yaml", "--set", "drain.timeoutSeconds=110"}, "may be 110 together"},
		"a drain of no number":     {[]string{"-f", "values/small.yaml", "--set", "drain.timeoutSeconds=long"}, "timeoutSeconds"},
		"browsers cut off":         {[]string{"-f", "values/small.yaml", "--set", "networkPolicy.enabled=true"}, "the service could not reach its browsers"},
		"Redis cut off":            {[]string{"-f", "values/small.yaml", "--set", "networkPolicy.enabled=true,networkPolicy.containers={10.1.0.0/16}"}, "the service could not reach config.REDIS_ENDPOINT"},
		"a collector cut off":      {[]string{"-f", "values/eks.yaml", "--set", "networkPolicy.collector=null"}, "traces could not reach config.OTEL_EXPORTER_OTLP_ENDPOINT"},
		"an ingress cut off":       {[]string{"-f", "values/eks.yaml", "--set", "networkPolicy.loadBalancers=null"}, "the ingress could not reach the service"},
		"a balancer cut off":       {[]string{"-f", "values/eks.yaml", "--set", "networkPolicy.loadBalancers=null,ingress.enabled=false,registration.enabled=false,service.type=LoadBalancer"}, "the service's load balancer could not reach it"},
		"registrations cut off":    {[]string{"-f", "values/eks.yaml", "--set", "networkPolicy.registrationBalancers=null"}, "networkPolicy.registrationBalancers is empty: registrations could not reach the service"},
		"Prometheus cut off":       {[]string{"-f", "values/eks.yaml", "--set", "networkPolicy.prometheus=null"}, "the ServiceMonitor's Prometheus could not scrape"},
		"the chart's other port":   {[]string{"-f", "values/small.yaml", "--set", "config.REGISTER_PORT=1"}, "config.REGISTER_PORT is the chart's to set"},
		"scaling by nothing":       {[]string{"-f", "values/small.yaml", "--set", "autoscaling.enabled=true,autoscaling.clientsPerReplica=0,autoscaling.cpuPercent=0"}, "autoscaling has nothing to go by"},
		"an ingress for no host":   {[]string{"-f", "values/small.yaml", "--set", "ingress.enabled=true"}, "ingress.host is empty"},
		"a role that is none":      {[]string{"-f", "values/small.yaml", "--set", "serviceAccount.roleArn=admin"}, "roleArn"},
		"an old Kubernetes":        {[]string{"-f", "values/small.yaml", "--kube-version", "1.26.0"}, "kubeVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, newest, row.args...)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
}

// TestServiceAccountsOfOthers: with an account that the chart does not make, and without a PDB.
func TestServiceAccountsOfOthers(t *testing.T) {
	text, err := template(t, newest, "-f", "values/small.yaml", "--set", "serviceAccount.create=false,serviceAccount.name=mine,podDisruptionBudget.enabled=false")
	if err != nil {
		t.Fatal(err)
	}
	r := decode(t, text)
	if len(r.accounts)+len(r.budgets) != 0 || r.deployments["wc-wallcrawler"].Spec.Template.Spec.ServiceAccountName != "mine" {
		t.Errorf("it renders %v", r.all)
	}
}
