package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMonitored tells the stories with a real Prometheus, from Debian's package.
func TestMonitored(t *testing.T) { tell(t, "testdata/monitored") }

// prometheusAPI is where it answers questions, on the gateway.
const prometheusAPI = "127.0.0.1:9090"

// startPrometheus runs a Prometheus on the gateway that scrapes an address often.
func startPrometheus(s *stage, ts *testscript.TestScript, args []string) error {
	target, err := netip.ParseAddrPort(strings.Join(args, ""))
	if err != nil {
		return usage("prometheus ADDR:PORT")
	}
	program, err := monitoring("prometheus")
	if err != nil {
		return err
	}
	config := filepath.Join(s.work, "prometheus.yml")
	text := fmt.Sprintf(`global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: portreeve
    static_configs: [{targets: ["%s"]}]
`, target)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	words := []string{program, "--config.file=" + config, "--web.listen-address=" + prometheusAPI,
		"--storage.tsdb.path=" + filepath.Join(s.work, "tsdb"), "--log.level=warn"}
	return s.start("prometheus", s.env.Gateway, words, os.Environ())
}

// monitoring returns the path of a program of Prometheus's package.
func monitoring(name string) (string, error) {
	path, err := filepath.Abs(filepath.Join("../../.build/roots/prometheus/usr/bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run scripts/install-deps test", err)
	}
	return path, nil
}

// queried waits until an expression has a value.
func queried(s *stage, _ *testscript.TestScript, args []string) error {
	if err := atLeast(2, args, "queried VALUE EXPRESSION…"); err != nil {
		return err
	}
	want, expression := args[0], strings.Join(args[1:], " ")
	var got string
	err := s.await(func() bool {
		got = s.query(expression)
		return got == want
	})
	if err != nil {
		return fmt.Errorf("%s is %s, not %s: %w", expression, got, want, err)
	}
	return nil
}

// query returns the value of an expression that has one, or what else is the
// matter with it.
func (s *stage) query(expression string) string {
	body, err := s.get("http://" + prometheusAPI + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return err.Error()
	}
	var answer struct {
		Data struct {
			Result []struct{ Value []any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Data.Result) != 1 || len(answer.Data.Result[0].Value) != 2 {
		return string(body)
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// get reads a page on the gateway.
func (s *stage) get(page string) ([]byte, error) {
	ctx, cancel := s.patience()
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return s.env.Gateway.Dial(ctx, netip.AddrPort{}, to)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", page, response.Status, body)
	}
	return body, err
}

// linted lets Prometheus's own tool judge the page of metrics, which must have
// nothing to say.
func linted(s *stage, _ *testscript.TestScript, args []string) error {
	target, err := netip.ParseAddrPort(strings.Join(args, ""))
	if err != nil {
		return usage("linted ADDR:PORT")
	}
	program, err := monitoring("promtool")
	if err != nil {
		return err
	}
	page, err := s.get("http://" + target.String() + "/metrics")
	if err != nil {
		return err
	}
	lint := exec.Command(program, "check", "metrics")
	lint.Stdin = strings.NewReader(string(page))
	if said, err := lint.CombinedOutput(); err != nil || len(said) > 0 {
		return fmt.Errorf("promtool: %v: %s", err, said)
	}
	return nil
}
