package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// run runs a command there and gives what it prints.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said.String())
	}
	return out.String(), nil
}

func mustRun(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), dir, env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// commitOf clones the checkout and commits there what is not committed here.
func commitOf(t *testing.T, checkout string) string {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "source")
	mustRun(t, checkout, nil, "git", "clone", "--quiet", "--shared", ".", clone)
	for name := range strings.SplitSeq(mustRun(t, checkout, nil, "git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"), "\x00") {
		if name == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(checkout, name))
		to := filepath.Join(clone, name)
		if errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(to)
			continue
		}
		info, statErr := os.Stat(filepath.Join(checkout, name))
		if err = errors.Join(err, statErr); err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o750)
		}
		if err == nil {
			err = os.WriteFile(to, text, info.Mode())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, clone, nil, "git", "add", "-A")
	mustRun(t, clone, nil, "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--allow-empty", "-m", "test")
	return clone
}

// TestRelease makes the archive of this platform, twice as .ci/release does, and looks into it.
func TestRelease(t *testing.T) {
	t.Parallel()
	clone := commitOf(t, "..")
	platform := []string{"PLATFORMS=" + runtime.GOOS + "/" + runtime.GOARCH, "GOFLAGS=-buildvcs=false"}
	stray := filepath.Join(clone, "stray")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), clone, platform, ".ci/release", "v0.0.1-test"); err == nil || !strings.Contains(err.Error(), "not committed") {
		t.Fatalf("a checkout with changes is released: %v", err)
	}
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	mustRun(t, clone, platform, ".ci/release", "v0.0.1-test")

	name := "wallcrawler_0.0.1-test_" + runtime.GOOS + "_" + runtime.GOARCH
	archive, err := os.ReadFile(filepath.Join(clone, "dist", name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(clone, "dist", "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	if want := hex.EncodeToString(sum[:]) + "  " + name + ".tar.gz\n"; string(sums) != want {
		t.Errorf("SHA256SUMS is %q, want %q", sums, want)
	}
	files := unpack(t, archive)
	for _, file := range []string{"README.md", "CHANGELOG.md", "rules.yaml", "dashboard.json", "charts/wallcrawler/Chart.yaml"} {
		if len(files[name+"/"+file]) == 0 {
			t.Errorf("the archive has no %s", file)
		}
	}
	binary := filepath.Join(t.TempDir(), "wallcrawler")
	if err := os.WriteFile(binary, files[name+"/wallcrawler"], 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	if out := mustRun(t, "", nil, binary, "version"); !slices.Contains(strings.Fields(out), "v0.0.1-test") {
		t.Errorf("it says that it is %q", out)
	}
	checkSBOM(t, binary)
}

func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for in := tar.NewReader(zipped); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d:%d %s", h.Name, h.Uid, h.Gid, h.Uname)
		}
		if files[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSBOM compares what .ci/sbom.go says of a binary with what the go command says.
func checkSBOM(t *testing.T, binary string) {
	t.Helper()
	in := json.NewDecoder(strings.NewReader(mustRun(t, "..", nil, "go", "run", ".ci/sbom.go", binary)))
	in.DisallowUnknownFields()
	type component struct {
		Type, Name, Version, PURL string
		Properties                []struct{ Name, Value string }
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Version                int
		Metadata               struct{ Component component }
		Components             []component
	}
	if err := in.Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.5" || bom.Version != 1 || bom.Metadata.Component.Type != "application" ||
		bom.Metadata.Component.Name != "github.com/wallcrawler/wallcrawler" {
		t.Errorf("it is %s %s %d of %+v", bom.BOMFormat, bom.SpecVersion, bom.Version, bom.Metadata)
	}
	want := map[string]string{}
	for line := range strings.Lines(mustRun(t, "", nil, "go", "version", "-m", binary)) {
		if fields := strings.Fields(line); len(fields) == 4 && (fields[0] == "dep" || fields[0] == "=>") {
			raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[3], "h1:"))
			if err != nil {
				t.Fatal(err)
			}
			want[fields[1]+"@"+fields[2]] = hex.EncodeToString(raw)
		}
	}
	got := map[string]string{}
	for _, c := range bom.Components {
		if c.Type != "library" || !regexp.MustCompile(`^pkg:golang/[\w.~/-]+@[\w.%-]+$`).MatchString(c.PURL) {
			t.Errorf("%s is a %s, %s", c.Name, c.Type, c.PURL)
		}
		if c.Name == "std" {
			if "go"+c.Version != runtime.Version() {
				t.Errorf("the standard library is %s, and Go %s", c.Version, runtime.Version())
			}
			continue
		}
		if len(c.Properties) != 1 || c.Properties[0].Name != "go:sum:h1:sha256" {
			t.Errorf("%s has no sum: %v", c.Name, c.Properties)
			continue
		}
		got[c.Name+"@"+c.Version] = c.Properties[0].Value
	}
	if len(want) < 20 || !maps.Equal(got, want) {
		t.Errorf("it lists %d modules, the binary has %d: %v\n%v", len(got), len(want), got, want)
	}
}
