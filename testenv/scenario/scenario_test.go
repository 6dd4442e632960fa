// Package scenario tells whole-system stories: the built binary, a network of
// namespaces, real or exact mail servers, and the kernel. Each file of testdata
// is one story; commands_test.go lists the commands that they are written in.
package scenario

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv"
)

// binary is the portreeve that the stories run.
var binary string

// TestMain lets twice as many stories play side by side as there are processors, unless
// -parallel says how many: they wait for half of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	testenv.Main(m, &binary)
}

// patience is how long a story waits for any one thing before it fails.
const patience = 2 * time.Minute

func TestScenarios(t *testing.T) { tell(t, "testdata") }

// tell runs the stories in a directory.
func tell(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup:              func(env *testscript.Env) error { return setUp(t.Context(), env) },
		Cmds:               commands,
		Condition:          condition,
	})
}

// condition is what a story can ask of the machine: [tcx], for foreign TCX
// programs. On which kernels stories may be skipped, testenv/kernels checks.
func condition(name string) (bool, error) {
	if name != "tcx" {
		return false, fmt.Errorf("no condition %s", name)
	}
	return testenv.HasTCX()
}

// setUp gives a story its stage.
func setUp(ctx context.Context, env *testscript.Env) error {
	s := &stage{ctx: ctx, work: env.WorkDir, processes: make(map[string]*process)}
	env.Values[stageKey{}] = s
	env.Setenv("PATH", filepath.Join(env.WorkDir, ".bin")+":"+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	env.Defer(func() {
		if err := s.close(); err != nil {
			env.T().Log(err)
			env.T().FailNow()
		}
	})
	return nil
}
