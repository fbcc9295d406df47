package agent_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// yanglint holds documents against the YANG modules, with the features that
// the agent says it has.
type yanglint struct {
	dir  string // for documents
	data string // rats-support-structures, which leaves of other documents refer to
}

const (
	shippedModules = "/usr/share/yang/modules/libyang" // of Debian's libyang2
	charra         = "ietf-tpm-remote-attestation"
)

func newYanglint(t testing.TB, support []byte) yanglint {
	t.Helper()
	if _, err := exec.LookPath("yanglint"); err != nil {
		t.Skip("needs yanglint: run scripts/setup")
	}
	y := yanglint{dir: t.TempDir()}
	y.data = y.file(t, "support.json", support)
	return y
}

func (y yanglint) file(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(y.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// check returns what yanglint has against a document, or "".
func (y yanglint) check(t testing.TB, kind string, doc []byte) string {
	t.Helper()
	args := []string{
		"-D", "-p", "restconf/yang", "-p", shippedModules, "-t", kind,
		"-F", charra + ":bios,netequip_boot", "-F", "ietf-tcg-algs:tpm20", "-F", "ietf-hardware:", "-F", "ietf-keystore:",
	}
	if kind == "data" {
		args = append(args, "--present") // a document has the data of one module, not of all
	} else {
		args = append(args, "-O", y.data)
	}
	modules, err := filepath.Glob("restconf/yang/*.yang")
	if err != nil || len(modules) == 0 {
		t.Fatalf("no YANG modules: %v", err)
	}
	args = append(args, modules...)
	args = append(args, shippedModules+"/ietf-yang-library@2019-01-04.yang", shippedModules+"/ietf-datastores@2018-02-14.yang")
	out, err := exec.CommandContext(t.Context(), "yanglint", append(args, y.file(t, "document.json", doc))...).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return ""
}

func (y yanglint) must(t testing.TB, kind string, doc []byte) {
	t.Helper()
	if why := y.check(t, kind, doc); why != "" {
		t.Errorf("%s document is not of the module: %s\n%s", kind, why, doc)
	}
}

// envelope puts the input or output of an operation as RESTCONF has it into
// the envelope that yanglint wants: the operation's name.
func envelope(t testing.TB, operation string, doc []byte) []byte {
	t.Helper()
	for _, side := range []string{"input", "output"} {
		head := []byte(`{"` + charra + ":" + side + `":`)
		if bytes.HasPrefix(doc, head) {
			return []byte(strings.Replace(string(doc), `:`+side+`":`, `:`+operation+`":`, 1))
		}
	}
	t.Fatalf("neither input nor output of %s: %s", operation, doc)
	return nil
}
