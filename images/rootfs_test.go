package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/hw/board"
)

// unpackedRoot returns a folder with the files of an image's root file system.
func unpackedRoot(t *testing.T, dir string) string {
	t.Helper()
	image, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer image.close()
	squashed, tree := filepath.Join(t.TempDir(), "root.img"), filepath.Join(t.TempDir(), "root")
	if err := (tampered{opened: image}).save(board.Root, squashed); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "/", "unsquashfs", "-quiet", "-no-progress", "-dest", tree, squashed); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestRootHasModulesWithAllThatTheyDependOn(t *testing.T) {
	tree := unpackedRoot(t, buildSmall(t, smallSpec(t)))
	lists, err := filepath.Glob(filepath.Join(tree, "lib/modules/*/modules.dep"))
	if err != nil || len(lists) != 1 {
		t.Fatalf("lists of dependencies: %q, %v; want one", lists, err)
	}
	text, err := os.ReadFile(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		for _, file := range strings.Fields(strings.Replace(line, ":", "", 1)) {
			listed[strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_")] = true
			if _, err := os.Stat(filepath.Join(filepath.Dir(lists[0]), file)); err != nil {
				t.Errorf("%s: %v", strings.TrimSpace(line), err)
			}
		}
	}
	start, err := os.ReadFile(filepath.Join(tree, "lib/modules-load.d/router.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range words(string(start)) {
		if !listed[strings.ReplaceAll(name, "-", "_")] {
			t.Errorf("the router's init inserts %s, which its root does not have", name)
		}
	}
}

// The watch must find its place on the ports before the router has a root.
func TestInitramfsHasWhatTheWatchLooksThrough(t *testing.T) {
	image, err := open(t.Context(), buildSmall(t, smallSpec(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer image.close()
	have := strings.Join(image.modules, " ")
	for _, name := range []string{"sch_ingress", "cls_bpf", "af_packet_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "nfnetlink"} {
		if !strings.Contains(have, name) {
			t.Errorf("initramfs lacks %s: it has %s", name, have)
		}
	}
}

func TestProgramOfTheBuildHostBringsItsLibraries(t *testing.T) {
	spec := smallSpec(t)
	file, err := HostProgram("ip")
	if err != nil {
		t.Skip(err)
	}
	spec.Userland["ip"] = file
	tree := unpackedRoot(t, buildSmall(t, spec))
	out, err := output(t.Context(), "/", "chroot", tree, "/bin/ip", "-V")
	if os.Geteuid() != 0 {
		t.Skip("needs root: chroot")
	}
	if err != nil || !strings.Contains(string(out), "iproute2") {
		t.Errorf("ip -V inside the root: %q, %v", out, err)
	}
	if _, err := HostProgram("no-such-program"); err == nil {
		t.Error("a program that is not there was found")
	}
}
