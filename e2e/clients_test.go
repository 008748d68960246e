package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runClient runs a script of the npm project with the input as JSON, and reads the JSON that
// it prints.
func runClient(t *testing.T, script string, input, out any) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: %s", err, setUp)
	}
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := output(t, program{
		name: script, path: node, args: []string{script}, dir: suite.clients,
		env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "INPUT=" + string(text)},
	}, 90*time.Second)
	if code != 0 {
		t.Fatalf("%s has ended with status %d:\n%s\n%s", script, code, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), out); err != nil {
		t.Fatalf("%s printed no JSON: %v:\n%s", script, err, stdout)
	}
}

// tour is what a client has seen on its tour of the site.
type tour struct {
	Title, Clicked, Label string // of the first page; after the click
	Second                string // title of the second tab
	Tabs                  int
	BigLength             int
	BigSum                string
}

func (s site) wantTour(t *testing.T, got tour) {
	t.Helper()
	want := tour{Title: "first", Clicked: "clicked", Label: "done", Second: "second", Tabs: 2, BigLength: bigSize, BigSum: s.bigSum}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the tour went wrong (-want +got):\n%s", diff)
	}
}

func wantPNG(t *testing.T, image []byte, width, height int) {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(image))
	if err != nil {
		t.Fatalf("the screenshot is no PNG: %v", err)
	}
	if size := picture.Bounds().Size(); size.X != width || size.Y != height {
		t.Errorf("the screenshot is %dx%d, want %dx%d", size.X, size.Y, width, height)
	}
}

func wantPDF(t *testing.T, document []byte) {
	t.Helper()
	if len(document) < 500 || !bytes.HasPrefix(document, []byte("%PDF-")) || !bytes.Contains(document[len(document)-32:], []byte("%%EOF")) {
		t.Errorf("%d bytes are no PDF", len(document))
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// discoveryURL is the http URL that clients may be given instead of the connect URL.
func discoveryURL(t *testing.T, s session) string {
	t.Helper()
	u, err := url.Parse(s.ConnectURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme = "http"
	u.Path = strings.TrimSuffix(u.Path, "ws")
	return u.String()
}

func TestClients(t *testing.T) {
	s := startService(t, serviceOptions{})
	site := startSite(t)

	t.Run("Playwright drives a session by its connect URL", func(t *testing.T) {
		created := s.alice.create(t, map[string]any{"browserSettings": map[string]any{"viewport": map[string]int{"width": 800, "height": 600}}})
		dir := t.TempDir()
		var got tour
		runClient(t, "playwright.mjs", map[string]string{"url": created.ConnectURL, "site": site.url, "dir": dir}, &got)
		site.wantTour(t, got)
		wantPNG(t, readFile(t, filepath.Join(dir, "page.png")), 640, 360)
		wantPDF(t, readFile(t, filepath.Join(dir, "page.pdf")))
		sum := sha256.Sum256(readFile(t, filepath.Join(dir, "download.bin")))
		if hex.EncodeToString(sum[:]) != site.bigSum {
			t.Error("the download is not what the site has sent")
		}
		s.alice.release(t, created.ID)
		s.alice.awaitEnd(t, 10*time.Second, created.ID, "released")
	})

	t.Run("Playwright drives a session by its http URL", func(t *testing.T) {
		created := s.alice.create(t, nil)
		var got struct{ Title string }
		runClient(t, "playwright-title.mjs", map[string]string{"url": discoveryURL(t, created), "site": site.url}, &got)
		if got.Title != "first" {
			t.Errorf("title is %q", got.Title)
		}
		s.alice.release(t, created.ID)
	})

	t.Run("Puppeteer drives a session by its connect URL", func(t *testing.T) {
		created := s.alice.create(t, nil)
		dir := t.TempDir()
		var got tour
		runClient(t, "puppeteer.mjs", map[string]string{"browserWSEndpoint": created.ConnectURL, "site": site.url, "dir": dir}, &got)
		site.wantTour(t, got)
		wantPNG(t, readFile(t, filepath.Join(dir, "page.png")), 640, 360)
		wantPDF(t, readFile(t, filepath.Join(dir, "page.pdf")))
		s.alice.release(t, created.ID)
	})

	t.Run("Puppeteer finds a session by browserURL, with the token of the answer at the root", func(t *testing.T) {
		created := s.alice.create(t, nil)
		// Puppeteer drops the query of its browserURL; whoever has a browserURL asks at the
		// root with the token and gives Puppeteer the URL of the answer.
		a := call(t, http.MethodGet, s.url+"/json/version?token="+created.Token, nil)
		var version struct {
			WebSocketDebuggerURL string `json:"webSocketDebuggerUrl"`
		}
		if err := json.Unmarshal(a.body, &version); err != nil || a.status != http.StatusOK {
			t.Fatalf("status %d: %s", a.status, a.body)
		}
		if !strings.Contains(version.WebSocketDebuggerURL, "token=") {
			t.Error("the URL of the answer holds no token, and Puppeteer sends no headers")
		}
		var got struct{ Title string }
		runClient(t, "puppeteer-title.mjs", map[string]string{
			"browserWSEndpoint": version.WebSocketDebuggerURL, "site": site.url}, &got)
		if got.Title != "first" {
			t.Errorf("title is %q", got.Title)
		}
		s.alice.release(t, created.ID)
	})

	t.Run("two sessions cannot see each other", func(t *testing.T) {
		one, other := s.alice.create(t, nil), s.alice.create(t, nil)
		var got struct {
			OneWho, OtherWho   string // whom the site takes each browser for
			OneURLs, OtherURLs []string
			OtherCookies       int
		}
		runClient(t, "isolation.mjs", map[string]string{"one": one.ConnectURL, "other": other.ConnectURL, "site": site.url}, &got)
		if got.OneWho != "one" || got.OtherWho != "nobody" || got.OtherCookies != 0 {
			t.Errorf("cookies went from one session to the other: %+v", got)
		}
		// Behind the clients' back: the browsers' own lists, and their processes.
		first, second := dialCDP(t, one.ConnectURL), dialCDP(t, other.ConnectURL)
		if first.browserPid(t) == second.browserPid(t) {
			t.Error("two sessions share a browser")
		}
		for _, u := range second.pages(t) {
			if strings.Contains(u, "/login") {
				t.Errorf("the other session sees %s", u)
			}
		}
		if !slices.ContainsFunc(got.OneURLs, func(u string) bool { return strings.Contains(u, "/who") }) {
			t.Errorf("the first session does not see its own page: %v", got.OneURLs)
		}
		s.alice.release(t, one.ID)
		s.alice.release(t, other.ID)
	})

	t.Run("a client that comes back within the grace finds its page", func(t *testing.T) {
		created := s.alice.create(t, nil)
		type marked struct{ URL, Mark string }
		var got struct {
			Left  marked
			Found []marked
		}
		runClient(t, "comeback.mjs", map[string]string{"url": created.ConnectURL, "site": site.url}, &got)
		if len(got.Found) != 1 || got.Found[0] != got.Left || got.Left.Mark == "" {
			t.Errorf("left %+v and found %+v", got.Left, got.Found)
		}
		ended := s.alice.awaitEnd(t, 15*time.Second, created.ID, "disconnected")
		if ended.Status != "COMPLETED" {
			t.Errorf("status is %s", ended.Status)
		}
	})

	t.Run("a keepAlive session outlives the grace", func(t *testing.T) {
		kept, other := s.alice.create(t, map[string]any{"keepAlive": true}), s.alice.create(t, nil)
		for _, created := range []session{kept, other} {
			c := dialCDP(t, created.ConnectURL)
			c.alive(t)
			c.leave(t)
		}
		s.alice.awaitEnd(t, 15*time.Second, other.ID, "disconnected")
		if now := s.alice.get(t, kept.ID); now.Phase != "ready" {
			t.Fatalf("it is %s", now.Phase)
		}
		dialCDP(t, kept.ConnectURL).alive(t)
		s.alice.release(t, kept.ID)
		s.alice.awaitEnd(t, 10*time.Second, kept.ID, "released")
	})

	t.Run("a session ends at its deadline, and its client is told", func(t *testing.T) {
		created := s.alice.create(t, map[string]any{"timeout": 2, "keepAlive": true})
		c := dialCDP(t, created.ConnectURL)
		c.alive(t)
		c.wantClose(t, 5*time.Second, 1000, "deadline")
		if ended := s.alice.awaitEnd(t, 5*time.Second, created.ID, "deadline"); ended.Status != "TIMED_OUT" {
			t.Errorf("status is %s", ended.Status)
		}
	})

	t.Run("chromedp drives a session", func(t *testing.T) { driveChromedp(t, s, site) })

	t.Run("go-rod drives a session", func(t *testing.T) { driveRod(t, s, site) })

	t.Run("chrome-remote-interface drives a session", func(t *testing.T) {
		created := s.alice.create(t, nil)
		dir := t.TempDir()
		var got tour
		runClient(t, "cri.mjs", map[string]string{"url": created.ConnectURL, "site": site.url, "dir": dir}, &got)
		site.wantTour(t, got)
		wantPNG(t, readFile(t, filepath.Join(dir, "page.png")), 640, 360)
		s.alice.release(t, created.ID)
	})

	t.Run("a browser closed through the protocol ends its session", func(t *testing.T) {
		created := s.alice.create(t, nil)
		c := dialCDP(t, created.ConnectURL)
		c.must(t, "Browser.close", nil, nil)
		c.wantClose(t, 5*time.Second, 1000, "released")
		s.alice.awaitEnd(t, 10*time.Second, created.ID, "released")
	})
}
