package images

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rootfs writes the squashfs with the board's files and the userland's commands.
func (b build) rootfs(ctx context.Context) error {
	tree := b.path("root")
	if err := b.extractDir("rootfs", tree); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "conf", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "var"} {
		if err := makeDir(filepath.Join(tree, dir)); err != nil {
			return err
		}
	}
	for name, file := range b.spec.Userland {
		if err := copyFile(file, filepath.Join(tree, "bin", name), 0o755); err != nil {
			return fmt.Errorf("command %s: %w", name, err)
		}
		if err := copyLibraries(ctx, file, tree); err != nil {
			return fmt.Errorf("libraries of command %s: %w", name, err)
		}
	}
	if err := os.Symlink("../bin/init", filepath.Join(tree, "sbin/init")); err != nil {
		return err
	}
	if err := b.rootModules(ctx, tree); err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	return SquashFS(ctx, tree, b.path("root.img"))
}

// SquashFS packs the folder tree into out.
func SquashFS(ctx context.Context, tree, out string) error {
	// SOURCE_DATE_EPOCH sets both times; one processor keeps the block order.
	return run(ctx, filepath.Dir(out), "mksquashfs", tree, out, "-comp", "xz", "-all-root", "-noappend",
		"-no-progress", "-quiet", "-processors", "1", "-no-xattrs", "-no-exports")
}

// HostProgram returns the file of a program of the build host.
func HostProgram(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return filepath.EvalSymlinks(file)
		}
	}
	return "", fmt.Errorf("%s is not installed: run scripts/setup", name)
}

// copyLibraries copies the shared libraries that a program of the build host
// needs, and the loader, to where it looks for them.
func copyLibraries(ctx context.Context, file, tree string) error {
	if !isDynamic(file) {
		return nil
	}
	out, err := output(ctx, "/", "ldd", file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		library := libraryOf(line)
		target := filepath.Join(tree, library)
		if _, err := os.Stat(target); library == "" || err == nil {
			continue
		}
		if err := makeDirs(tree, filepath.Dir(library)); err != nil {
			return err
		}
		if err := copyFile(library, target, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// isDynamic tells whether a file is an ELF object that names libraries.
func isDynamic(file string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	return err == nil && len(needed) > 0
}

// libraryOf returns the file in one line of ldd: "NAME => FILE (ADDRESS)" or
// "FILE (ADDRESS)" (ldd(1)). The kernel's own library has no file.
func libraryOf(line string) string {
	for _, word := range strings.Fields(line) {
		if strings.HasPrefix(word, "/") {
			return word
		}
	}
	return ""
}

// makeDirs makes a folder below tree, and those above it.
func makeDirs(tree, dir string) error {
	at := tree
	for _, name := range strings.Split(strings.Trim(dir, "/"), "/") {
		at = filepath.Join(at, name)
		if err := makeDir(at); err != nil {
			return err
		}
	}
	return nil
}
