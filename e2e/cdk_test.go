package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
	"github.com/redis/go-redis/v9"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// The templates of deploy/cdk, each with what its Redis is.
func TestTheTemplatesEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, url string
		cluster   bool
	}{
		{name: "default"},
		{name: "full", url: "https://browsers.example.com", cluster: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testTemplate(t, c.name, c.url, c.cluster)
		})
	}
}

// testTemplate starts serve and agents with the commands and the environment that the template
// gives them, with Redis as the template has it (TLS, users, parameters), and drives a browser. The
// template's functions run in theirs, beside it.
func testTemplate(t *testing.T, name, publicURL string, cluster bool) {
	template := readCDK(t, name)
	store := startTLSRedis(t, cluster, "canary"+rand.Text())
	tmp := t.TempDir()
	template.names = []string{"/tmp", tmp} // the task's volume
	browsers := template.container(t, "BrowsersTask")
	s := newService(t, serviceOptions{redis: store, agent: append([]string{suite.binary}, browsers.command...), agentEnv: environ(browsers.env)})
	manager := startSecretsManager(t)
	host, port, err := net.SplitHostPort(store.addr)
	if err != nil {
		t.Fatal(err)
	}

	// What stands for AWS on this machine: all of it.
	template.here = map[string]string{
		"AWS::Region": "us-east-1",

		"SecretsJwe":           manager.draw("Jwe", `{"JWE_SECRET":"canary`+rand.Text()+`"}`),
		"SecretsContainer":     manager.draw("Container", "canary"+rand.Text()),
		"SecretsApiKeys":       manager.draw("ApiKeys", s.alice.key),
		"SecretsRedisService":  manager.draw("RedisService", "canary"+rand.Text()),
		"SecretsRedisSessions": manager.draw("RedisSessions", "canary"+rand.Text()),
		"SecretsRedisWake":     manager.draw("RedisWake", "canary"+rand.Text()),

		"RedisNodes.PrimaryEndPoint.Address": host, "RedisNodes.PrimaryEndPoint.Port": port,
		"RedisServerless.Endpoint.Address": host, "RedisServerless.Endpoint.Port": port,

		"Cluster": "e2e", "BrowsersTask": "browser",
		"NetworkVpc.CidrBlock":           s.network.String(),
		"NetworkBrowsersGroup.GroupId":   "sg-0123",
		"NetworkVpcPrivateSubnet1Subnet": "subnet-01",
		"NetworkVpcPrivateSubnet2Subnet": "subnet-02",
		"ServiceBalancer.DNSName":        strings.TrimPrefix(s.url, "http://"),
	}
	template.names = append(template.names, "10.20.0.0/16", s.network.String())
	registerPort := strconv.Itoa(freePort(t))
	for _, deployment := range []string{"wallcrawler", "blue"} { // where the namespace would lead
		template.names = append(template.names, "http://replicas."+deployment+".internal:8081", "http://127.0.0.1:"+registerPort)
	}
	if publicURL != "" {
		template.names = append(template.names, publicURL, s.url)
	}
	container, functions := template.container(t, "ServiceTask"), template.functions(t)
	if strings.Join(container.command, " ") != "serve" {
		t.Fatalf("the template runs %q", container.command)
	}
	for user, rules := range template.users(t) {
		password := manager.secrets[template.here["SecretsRedis"+strings.ToUpper(user[:1])+user[1:]]]
		rule := append([]any{"ACL", "SETUSER", user, ">" + password}, words(rules)...)
		if err := store.client.Do(t.Context(), rule...).Err(); err != nil {
			t.Fatalf("user %s: %v", user, err)
		}
	}
	parameters(t, template, store)

	// What ECS, the image and this machine add.
	env := container.env
	traces := collectTraces(t, env, manager, container.secrets["OTEL_EXPORTER_OTLP_HEADERS"])
	for variable, arn := range container.secrets {
		env[variable] = manager.secrets[arn]
	}
	for _, name := range []string{"PORT", "LISTEN_HOST", "CONTAINER_PORT", "AWS_ENDPOINT_URL", "PATH", "HOME", "TMPDIR"} {
		env[name] = s.env[name]
	}
	env["REGISTER_PORT"] = registerPort
	env["REPLICA_ADDR"] = strings.TrimPrefix(s.url, "http://") // there is no task metadata
	env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = manager.URL
	env["SSL_CERT_FILE"] = store.authority
	s.env = env
	s.secrets = map[string]string{}
	maps.Copy(s.secrets, manager.secrets)

	s.start(t)
	s.awaitReady(t)
	s.awaitContainer(t)
	// Not in parallel: both count on what the other leaves.
	t.Run("a driven browser", func(t *testing.T) { visit(t, s, startSite(t)) })
	if functions["Create"].Handler != "" {
		t.Run("functions", func(t *testing.T) { testFunctions(t, s, store, manager, functions) })
	}

	traces(t)
	s.process.signal(t, syscall.SIGTERM)
	if code := s.process.awaitExit(t, 60*time.Second); code != 0 {
		t.Errorf("serve has ended with status %d", code)
	}
	wantMetrics(t, s.process.stdout.String(), env["DEPLOYMENT"], template.metrics())
}

// visit drives a session's browser to the site and clicks. Longer tours are other tests'.
func visit(t *testing.T, s *service, site site) {
	created := s.alice.create(t, nil)
	timed, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	allocated, cancel := remote.NewAllocator(timed, created.ConnectURL, remote.NoModifyURL)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocated)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(site.url+"/"), chromedp.Click("#go")); err != nil {
		t.Fatal(err)
	}
	if got := value(ctx, t, chromedp.Title()); got != "clicked" {
		t.Errorf("the title is %q after the click", got)
	}
	s.alice.release(t, created.ID)
	s.alice.awaitEnd(t, 30*time.Second, created.ID, "released")
}

// wantMetrics fails the test unless the lines for CloudWatch tell what the template scales and
// warns by.
func wantMetrics(t *testing.T, stdout, deployment string, names []string) {
	t.Helper()
	var last map[string]any
	joined := 0.0
	for text := range strings.Lines(strings.TrimSpace(stdout)) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("a line is %q: %v", text, err)
		}
		since, _ := line["Handshakes"].(float64)
		last, joined = line, joined+since
	}
	if last["Deployment"] != deployment {
		t.Errorf("the last line is of %v, the template's metrics of %s", last["Deployment"], deployment)
	}
	if len(names) < 8 {
		t.Errorf("the template has %q only", names)
	}
	for _, name := range names {
		if _, told := last[name].(float64); !told {
			t.Errorf("%s, by which the template scales or warns, is not told: %v", name, last)
		}
	}
	if joined < 1 {
		t.Errorf("a client has been there, and Handshakes is %v in all", joined)
	}
}

func words(text string) []any {
	var all []any
	for w := range strings.FieldsSeq(text) {
		all = append(all, w)
	}
	return all
}

// parameters sets what the template's parameter group does. A serverless cache has none.
func parameters(t *testing.T, template *cdkTemplate, store *redisServer) {
	t.Helper()
	for _, r := range template.resources {
		if r.Type != "AWS::ElastiCache::ParameterGroup" {
			continue
		}
		properties, _ := r.Properties["Properties"].(map[string]any)
		for name, v := range properties {
			if err := store.client.ConfigSet(t.Context(), name, template.value(t, v)).Err(); err != nil {
				t.Fatalf("parameter %s: %v", name, err)
			}
		}
	}
}

// testFunctions runs the tests of deploy/lambda, each of which counts.
func testFunctions(t *testing.T, s *service, store *redisServer, manager *secretsManager, functions map[string]cdkFunction) {
	world, err := json.Marshal(map[string]any{
		"functions": functions, "service": s.url, "key": s.alice.key,
		"redis": map[string]any{"endpoint": store.addr, "tls": true, "password": store.password},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tests, err := stage.NodeTests(ctx, "../deploy/lambda", "../report.mjs", environ(map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": t.TempDir(), "WORLD": string(world), "NODE_EXTRA_CA_CERTS": store.authority,
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": manager.URL,
	}), "test/functions.test.mjs")
	for _, one := range tests {
		t.Run(one.Name, func(t *testing.T) {
			if !one.Passed || one.Skipped {
				t.Error(one.Why)
			}
		})
	}
	if err != nil {
		t.Error(err)
	}
}

// collectTraces stands for the collector that an environment names, if it names one, and gives what
// checks that traces have come with the credentials of the secret.
func collectTraces(t *testing.T, env map[string]string, manager *secretsManager, headers string) (check func(t *testing.T)) {
	t.Helper()
	if env["OTEL_EXPORTER_OTLP_ENDPOINT"] == "" {
		return func(*testing.T) {}
	}
	token := "canary" + rand.Text()
	manager.keep(headers, "authorization=Bearer%20"+token)
	told := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case told <- r.URL.Path + " " + r.Header.Get("Authorization"):
		default:
		}
	}))
	t.Cleanup(collector.Close)
	env["OTEL_EXPORTER_OTLP_ENDPOINT"], env["OTEL_BSP_SCHEDULE_DELAY"], env["TRACES_PERCENT"] = collector.URL, "100", "100"
	return func(t *testing.T) {
		t.Helper()
		select {
		case got := <-told:
			if want := "/v1/traces Bearer " + token; got != want {
				t.Error("the traces went elsewhere or without their credentials")
			}
		case <-time.After(time.Minute):
			t.Error("no trace has come to the collector")
		}
	}
}

// secretsManager gives secrets as Secrets Manager does. No secret was ever rotated.
type secretsManager struct {
	*httptest.Server

	mu      sync.Mutex
	secrets map[string]string // by ARN
}

func startSecretsManager(t *testing.T) *secretsManager {
	t.Helper()
	m := &secretsManager{secrets: map[string]string{}}
	m.Server = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(m.Close)
	return m
}

// draw adds a secret and gives its ARN.
func (m *secretsManager) draw(name, text string) string {
	arn := "arn:aws:secretsmanager:us-east-1:000000000000:secret:" + name + "-AbCdEf"
	m.keep(arn, text)
	return arn
}

// keep adds a secret under an ARN of the caller's.
func (m *secretsManager) keep(arn, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secrets[arn] = text
}

func (m *secretsManager) serve(w http.ResponseWriter, r *http.Request) {
	var in struct{ SecretID, VersionStage string }
	text, _ := io.ReadAll(r.Body)
	secret, known := "", json.Unmarshal(text, &in) == nil && r.Header.Get("X-Amz-Target") == "secretsmanager.GetSecretValue"
	if known {
		m.mu.Lock()
		secret, known = m.secrets[in.SecretID]
		m.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if !known || in.VersionStage == "AWSPREVIOUS" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ResourceNotFoundException","message":"there is none"}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ARN": in.SecretID, "Name": in.SecretID, "SecretString": secret, "CreatedDate": 1.7e9})
}

// startTLSRedis starts a server that speaks TLS only; with cluster, a cluster of it alone. Its
// own client is the operator's.
func startTLSRedis(t *testing.T, cluster bool, password string) *redisServer {
	t.Helper()
	r := newRedis(t, password)
	dir := t.TempDir()
	r.authority = filepath.Join(dir, "cert.pem")
	pool := writeCertificate(t, r.authority, filepath.Join(dir, "key.pem"))
	at := slices.Index(r.args, "--port")
	r.args[at] = "--tls-port"
	r.args = append(r.args, "--port", "0", "--tls-cert-file", r.authority, "--tls-key-file", filepath.Join(dir, "key.pem"),
		"--tls-ca-cert-file", r.authority, "--tls-auth-clients", "no")
	if cluster {
		r.args = append(r.args, "--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", strconv.Itoa(freePort(t)),
			"--cluster-announce-ip", "127.0.0.1")
	}
	_ = r.client.Close() // it speaks no TLS
	r.client = redis.NewClient(&redis.Options{Addr: r.addr, Password: r.password, DialTimeout: time.Second,
		TLSConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}})
	t.Cleanup(func() { _ = r.client.Close() })
	r.start(t)
	if cluster {
		if err := r.client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// writeCertificate makes a certificate for 127.0.0.1 that vouches for itself.
func writeCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}
