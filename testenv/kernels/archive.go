package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// File types of a mode, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// tree is a file system before it is written: paths without a leading slash.
type tree map[string]node

// node is a directory, a symbolic link or a file.
type node struct {
	mode uint32 // type and permissions
	data string // target of a link, content of a file
	host string // in place of data: the file on this machine with the content
}

// add puts a node in its place, with the directories that lead to it. What is
// there already stays: the first to name a path decides.
func (t tree) add(name string, n node) {
	name = strings.Trim(path.Clean(name), "/")
	if _, taken := t[name]; taken || name == "" { // the root is there already
		return
	}
	t[name] = n
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, taken := t[dir]; !taken {
			t[dir] = node{mode: typeDir | 0o755}
		}
	}
}

func (t tree) dir(name string, permissions uint32) {
	t.add(name, node{mode: typeDir | permissions})
}

func (t tree) link(name, target string) {
	t.add(name, node{mode: typeLink | 0o777, data: target})
}

func (t tree) text(name, content string, permissions uint32) {
	t.add(name, node{mode: typeFile | permissions, data: content})
}

// copy adds what is at a path of this machine: a file, a link as a link, or a
// directory without its content.
func (t tree) copy(name, host string) error {
	info, err := os.Lstat(host)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		t.add(name, node{mode: typeFile | uint32(info.Mode().Perm()), host: host})
	case fs.ModeDir:
		t.dir(name, uint32(info.Mode().Perm()))
	case fs.ModeSymlink:
		target, err := os.Readlink(host)
		if err != nil {
			return err
		}
		t.link(name, target)
	default:
		return fmt.Errorf("copy %s into a guest: it is neither file, link nor directory", host)
	}
	return nil
}

// write writes the tree in the format of an initramfs, cpio "newc" (kernel,
// Documentation/driver-api/early-userspace/buffer-format.rst). A directory sorts
// before what it contains, as the kernel needs it. The same tree always gives
// the same bytes.
func (t tree) write(w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<20)
	for i, name := range slices.Sorted(maps.Keys(t)) {
		if err := writeNode(out, i+1, name, t[name]); err != nil {
			return fmt.Errorf("write %s to an initramfs: %w", name, err)
		}
	}
	if err := writeNode(out, 0, "TRAILER!!!", node{}); err != nil {
		return err
	}
	return out.Flush()
}

// writeNode writes a header of eight-digit hexadecimal fields, the name and the
// content, the latter two filled up to a multiple of four.
func writeNode(w io.Writer, inode int, name string, n node) error {
	content, size, err := n.open()
	if err != nil {
		return err
	}
	defer content.Close()
	const headerLength = 6 + 13*8
	// inode, mode, uid, gid, links, mtime, size, device 2x, of special file 2x, length of name, checksum
	_, err = fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00%s",
		inode, n.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name, padding(headerLength+len(name)+1))
	if err != nil {
		return err
	}
	if copied, err := io.Copy(w, content); err != nil || copied != size {
		return fmt.Errorf("copied %d of %d bytes: %w", copied, size, err)
	}
	_, err = io.WriteString(w, padding(int(size)))
	return err
}

// open returns the content and its length.
func (n node) open() (io.ReadCloser, int64, error) {
	if n.host == "" {
		return io.NopCloser(strings.NewReader(n.data)), int64(len(n.data)), nil
	}
	file, err := os.Open(n.host)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// padding is what brings a length to a multiple of four.
func padding(length int) string {
	return "\x00\x00\x00"[:-length&3]
}
