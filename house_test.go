package waxseal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wings says what each wing may import besides itself.
var wings = map[string][]string{
	"measure": {},
	"hw":      {"measure"},
	"boot":    {"measure", "hw"},
	"agent":   {"measure"},
	"fleet":   {"measure"},
	"images":  {"measure", "hw", "boot"},
	"cmd":     {"measure", "hw", "boot", "agent", "fleet", "images"},
}

// forTests says what a _test.go file of any wing may import besides.
var forTests = []string{"waxseal/hw/tpm/tpmtest", "waxseal/hw/tpm", "waxseal/images/vm", "waxseal/images/factory"}

// pure packages judge and encode. They open nothing and read no clock.
var pure = []string{"measure", "fleet/appraise", "agent/mirror"}

// notPure are the folders below a pure one that are not.
var notPure = []string{"measure/wire", "agent/mirror/probe"}

var impureImports = []string{"os", "os/exec", "net", "net/http", "syscall", "io/ioutil", "google.golang.org/grpc", "golang.org/x/sys", "github.com/cilium/ebpf"}

var clockCalls = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// generated are import paths of generated protobuf code.
var generated = []string{"github.com/openconfig/attestz/proto", "waxseal/measure/wire/waxsealpb", "google.golang.org/protobuf", "github.com/google/go-tpm-tools/proto"}

type sourceFile struct {
	dir, name string
	test      bool
	ast       *ast.File
}

func (f sourceFile) imports() []string {
	var paths []string
	for _, s := range f.ast.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// sources parses every Go file of this module, and no file of a module inside it.
func sources(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || hasModule(p)) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, sourceFile{filepath.ToSlash(filepath.Dir(p)), p, strings.HasSuffix(p, "_test.go"), file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found %d Go files: this test looks in the wrong place", len(files))
	}
	return files
}

func hasModule(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(found) > 0
}

func TestWingsImportOnlyWhatTheyMay(t *testing.T) {
	for _, f := range sources(t) {
		for _, p := range f.imports() {
			if why := wingBroken(f.dir, p, f.test); why != "" {
				t.Errorf("%s: %s", f.name, why)
			}
		}
	}
}

// wingBroken says which wall the import of p from folder dir breaks, or "".
func wingBroken(dir, p string, test bool) string {
	target, ours := strings.CutPrefix(p, "waxseal/")
	if !ours || dir == "." {
		return ""
	}
	from, _, _ := strings.Cut(dir, "/")
	to, _, _ := strings.Cut(target, "/")
	allowed, known := wings[from]
	switch {
	case !known:
		return fmt.Sprintf("folder %s is no wing of the house", from)
	case from == to && from != "cmd", slices.Contains(allowed, to):
		return ""
	case test && slices.Contains(forTests, p):
		return ""
	}
	return fmt.Sprintf("%s imports %s: %s may import %v", from, p, from, allowed)
}

func TestPurePackagesOpenNothingAndReadNoClock(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || !isPure(f.dir) {
			continue
		}
		for _, why := range impurities(f.ast) {
			t.Errorf("%s: %s", f.name, why)
		}
	}
}

func isPure(dir string) bool { return within(dir, pure) && !within(dir, notPure) }

func within(dir string, folders []string) bool {
	return slices.ContainsFunc(folders, func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
}

// impurities lists the imports and clock calls that a pure file must not have.
func impurities(file *ast.File) []string {
	var found []string
	clock := ""
	for _, s := range file.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		if p != "net/netip" && within(p, impureImports) {
			found = append(found, "a pure package imports "+p)
		}
		if p == "time" {
			clock = "time"
			if s.Name != nil {
				clock = s.Name.Name
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && clock != "" && x.Name == clock && slices.Contains(clockCalls, sel.Sel.Name) {
			found = append(found, "a pure package calls time."+sel.Sel.Name)
		}
		return true
	})
	return found
}

func TestOnlyWireKnowsGeneratedCode(t *testing.T) {
	for _, f := range sources(t) {
		if within(f.dir, []string{"measure/wire", "images/factory", "fleet/export"}) || f.test {
			continue
		}
		for _, p := range f.imports() {
			if within(p, generated) {
				t.Errorf("%s imports %s: only measure/wire knows generated code", f.name, p)
			}
		}
	}
}

// TestOnlyProbeKnowsBPF leaves out the lab that the watch is tried in: there
// attackers load programs too.
func TestOnlyProbeKnowsBPF(t *testing.T) {
	for _, f := range sources(t) {
		for _, p := range f.imports() {
			if within(p, []string{"github.com/cilium/ebpf"}) && !within(f.dir, []string{"agent/mirror/probe", "agent/watch/watchtest", "hw"}) {
				t.Errorf("%s imports %s: only agent/mirror/probe and hw do", f.name, p)
			}
		}
	}
}

func TestNoRoomWithoutAnIdea(t *testing.T) {
	for _, f := range sources(t) {
		for _, word := range []string{"util", "utils", "common", "helpers", "types", "misc"} {
			if path.Base(f.dir) == word || path.Base(f.name) == word+".go" {
				t.Errorf("%s: give the idea its name", f.name)
			}
		}
	}
}

// The walls themselves are tried: each broken one must be seen.
func TestABrokenWallIsSeen(t *testing.T) {
	for _, c := range []struct {
		dir, imports string
		test, broken bool
	}{
		{"measure", "waxseal/hw/tpm", false, true},
		{"measure/evidence", "waxseal/hw/tpm/tpmtest", true, false},
		{"measure/evidence", "waxseal/hw/tpm/tpmtest", false, true},
		{"agent", "waxseal/hw/tpm", false, true},
		{"agent/enrollz", "waxseal/fleet/enroll", false, true},
		{"fleet/challenge", "waxseal/measure/wire", false, false},
		{"fleet/challenge", "waxseal/boot", false, true},
		{"images", "waxseal/boot", false, false},
		{"boot", "waxseal/agent", false, true},
		{"cmd/waxseal", "waxseal/cmd/waxseald", false, true},
		{"pkg/new", "waxseal/measure", false, true},
	} {
		if got := wingBroken(c.dir, c.imports, c.test) != ""; got != c.broken {
			t.Errorf("%s importing %s (test %v): broken %v, want %v", c.dir, c.imports, c.test, got, c.broken)
		}
	}
	src := "package p\nimport (\"time\"; \"os\")\nvar _ = time.Now\nvar _ os.File\n"
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := impurities(file); len(got) != 2 {
		t.Errorf("impurities of a file with os and time.Now: %q, want two", got)
	}
}
