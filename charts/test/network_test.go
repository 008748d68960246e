package charttest

import (
	"net/netip"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// party is who speaks to a pod, or is spoken to: an address outside of the cluster, or a pod.
type party struct {
	addr      string            // not a pod's
	namespace string            // a pod's
	labels    map[string]string // the same
}

func outside(addr string) party { return party{addr: addr} }

func pod(namespace string, pairs ...string) party {
	p := party{namespace: namespace, labels: map[string]string{}}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		p.labels[name] = value
	}
	return p
}

// network judges as Kubernetes does which connections its policies let through.
type network struct {
	namespace string // of the policies
	policies  map[string]*networking.NetworkPolicy
	ports     []core.ContainerPort // of the pods in question, for ports that are named
}

// lets tells whether a pod with those labels may be spoken to (in), or may speak (out). A pod that
// no policy selects may do all; of those that are, some rule has to allow it.
func (n network) lets(t *testing.T, direction networking.PolicyType, self map[string]string, other party, protocol core.Protocol, port int) bool {
	t.Helper()
	selected := false
	for _, p := range n.policies {
		if !matches(t, &p.Spec.PodSelector, self) {
			continue
		}
		for _, kind := range p.Spec.PolicyTypes {
			selected = selected || kind == direction
		}
		if direction == networking.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				if n.anyPeer(t, r.From, other) && n.anyPort(r.Ports, protocol, port) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if n.anyPeer(t, r.To, other) && n.anyPort(r.Ports, protocol, port) {
				return true
			}
		}
	}
	return !selected
}

func (n network) anyPeer(t *testing.T, peers []networking.NetworkPolicyPeer, other party) bool {
	t.Helper()
	for _, p := range peers {
		if p.IPBlock != nil {
			if other.addr != "" && within(t, p.IPBlock, other.addr) {
				return true
			}
			continue
		}
		if other.addr != "" {
			continue
		}
		here := other.namespace == n.namespace // without a selector of namespaces, the policy's own
		if p.NamespaceSelector != nil {
			here = matches(t, p.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": other.namespace, "team": other.namespace})
		}
		if here && (p.PodSelector == nil || matches(t, p.PodSelector, other.labels)) {
			return true
		}
	}
	return len(peers) == 0
}

func (n network) anyPort(ports []networking.NetworkPolicyPort, protocol core.Protocol, port int) bool {
	for _, p := range ports {
		if p.Protocol == nil && protocol != core.ProtocolTCP || p.Protocol != nil && *p.Protocol != protocol {
			continue
		}
		number := p.Port.IntValue()
		if p.Port.Type == intstr.String {
			for _, named := range n.ports {
				if named.Name == p.Port.StrVal {
					number = int(named.ContainerPort)
				}
			}
		}
		if number == port {
			return true
		}
	}
	return len(ports) == 0
}

func within(t *testing.T, block *networking.IPBlock, addr string) bool {
	t.Helper()
	contains := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return prefix.Contains(netip.MustParseAddr(addr))
	}
	if !contains(block.CIDR) {
		return false
	}
	for _, cidr := range block.Except {
		if contains(cidr) {
			return false
		}
	}
	return true
}

func matches(t *testing.T, selector *v1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := v1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(set))
}

func TestWhoReachesWhom(t *testing.T) {
	const (
		in  = networking.PolicyTypeIngress
		out = networking.PolicyTypeEgress
	)
	browser := outside("10.1.7.7")
	replica := pod("browsers", "app.kubernetes.io/name=wallcrawler", "app.kubernetes.io/instance=wc", "app.kubernetes.io/component=service")
	prometheus := pod("monitoring", "app.kubernetes.io/name=prometheus")
	type row struct {
		direction networking.PolicyType
		who       string
		party     party
		port      int
		want      bool
	}
	eks := []row{
		{in, "a client's pod", pod("agents"), 8080, true},
		{in, "the ALB", outside("10.3.1.9"), 8080, true},
		{in, "Prometheus", prometheus, 8080, true},
		{in, "another pod beside Prometheus", pod("monitoring", "app.kubernetes.io/name=grafana"), 8080, false},
		{in, "another replica", replica, 8080, true},
		{in, "a stranger's pod", pod("default"), 8080, false},
		{in, "a stranger", outside("203.0.113.9"), 8080, false},
		{in, "a browser, at the API and the metrics", browser, 8080, false},
		{in, "a browser, to register", browser, 8081, true},
		{in, "the registration's load balancer", outside("10.3.0.9"), 8081, true},
		{in, "the registration's load balancer, at the API and the metrics", outside("10.3.0.9"), 8080, false},
		{in, "a browser beside the registration's load balancer, at the API and the metrics", outside("10.1.9.9"), 8080, false},
		{in, "the ALB, to register", outside("10.3.1.9"), 8081, false},
		{in, "a client's pod, to register", pod("agents"), 8081, false},
		{in, "a stranger, to register", outside("203.0.113.9"), 8081, false},
		{out, "a browser", browser, 9000, true},
		{out, "a browser's other port", browser, 22, false},
		{out, "AWS", outside("52.94.0.1"), 443, true},
		{out, "Redis", outside("10.2.0.5"), 6379, true},
		{out, "Redis, for reads of a serverless cluster", outside("10.2.0.5"), 6380, true},
		{out, "another host at Redis's port", outside("10.9.0.5"), 6379, false},
		{out, "the collector", pod("monitoring", "app=collector"), 4318, true},
		{out, "the collector's other port", pod("monitoring", "app=collector"), 9090, false},
		{out, "another replica", replica, 8080, true},
		{out, "what the values add", outside("10.4.0.7"), 8443, true},
		{out, "pod identity, beside a role that is named", outside("169.254.170.23"), 80, false},
		{out, "metadata of the node", outside("169.254.169.254"), 80, false},
	}
	usual := []string{"--set", "networkPolicy.enabled=true,networkPolicy.containers={10.1.0.0/16,fd12::/16}"}
	for _, c := range []struct {
		name string
		args []string
		rows []row
	}{
		{"eks", []string{"-f", "values/eks.yaml"}, eks},
		{"pod identity, and clients from anywhere", append([]string{"-f", "values/small.yaml", "--set", "networkPolicy.redis[0].ipBlock.cidr=10.2.0.0/16"}, usual...), []row{
			{in, "a stranger", outside("203.0.113.9"), 8080, true},
			{in, "a stranger of the new protocol", outside("2001:db8::9"), 8080, true},
			{in, "any pod", pod("default"), 8080, true},
			{in, "a browser", browser, 8080, false},
			{in, "a browser of the new protocol", outside("fd12::9"), 8080, false},
			{in, "a browser, to register", browser, 8081, true},
			{out, "pod identity", outside("169.254.170.23"), 80, true},
			{out, "pod identity of the new protocol", outside("fd00:ec2::23"), 80, true},
			{out, "metadata of the node", outside("169.254.169.254"), 80, false},
			{out, "Redis", outside("10.2.0.5"), 6379, true},
			{out, "a browser", browser, 8080, true},
			{out, "a collector that nobody named", pod("monitoring", "app=collector"), 4318, false},
		}},
		{"other ports", append([]string{"-f", "values/small.yaml", "--set-string", `config.REDIS_ENDPOINT=a.internal:26379\,b.internal:26380,config.REDIS_MASTER_NAME=wc,config.OTEL_EXPORTER_OTLP_ENDPOINT=https://traces.example.com/v1`,
			"--set", "networkPolicy.redis[0].ipBlock.cidr=10.2.0.0/16,networkPolicy.collector[0].ipBlock.cidr=10.5.0.0/16"}, usual...), []row{
			{out, "a sentinel", outside("10.2.0.5"), 26379, true},
			{out, "another", outside("10.2.0.5"), 26380, true},
			{out, "their master", outside("10.2.0.5"), 6379, true},
			{out, "no cluster", outside("10.2.0.5"), 6380, false},
			{out, "the collector", outside("10.5.0.5"), 443, true},
		}},
		{"trial", append([]string{"-f", "values/trial.yaml"}, usual...), []row{
			{out, "the chart's Redis", pod("browsers", "app.kubernetes.io/name=wallcrawler", "app.kubernetes.io/instance=wc", "app.kubernetes.io/component=redis"), 6379, true},
			{out, "a Redis of others", outside("10.2.0.5"), 6379, false},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := template(t, newest, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			r := decode(t, text)
			d := r.deployments["wc-wallcrawler"].Spec.Template
			n := network{namespace: "browsers", policies: r.policies, ports: d.Spec.Containers[0].Ports}
			for _, row := range c.rows {
				if got := n.lets(t, row.direction, d.Labels, row.party, core.ProtocolTCP, row.port); got != row.want {
					t.Errorf("%s of %s at %d: %v, want %v", row.direction, row.who, row.port, got, row.want)
				}
			}
			if !n.lets(t, out, d.Labels, outside("10.0.0.2"), core.ProtocolUDP, 53) {
				t.Error("names cannot be asked for")
			}
			redis := r.deployments["wc-wallcrawler-redis"]
			if redis == nil {
				return
			}
			for who, want := range map[string]bool{"service": true, "test": false} {
				from := pod("browsers", "app.kubernetes.io/name=wallcrawler", "app.kubernetes.io/instance=wc", "app.kubernetes.io/component="+who)
				if n.lets(t, in, redis.Spec.Template.Labels, from, core.ProtocolTCP, 6379) != want {
					t.Errorf("Redis is reached by %s: %v", who, !want)
				}
			}
			if n.lets(t, out, redis.Spec.Template.Labels, outside("203.0.113.9"), core.ProtocolTCP, 443) {
				t.Error("Redis speaks to the world")
			}
		})
	}
}
