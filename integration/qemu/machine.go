package qemu

// One machine: QEMU as a process, and its console.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nlb/integration/demand"
	"nlb/integration/netlab"
)

// Program is QEMU.
const Program = "qemu-system-x86_64"

// Machine is a virtual machine.
type Machine struct {
	Name        string
	image       *Image
	dir         string
	accelerator Accelerator
	memory      int // MiB
	over        chan struct{}
	err         error // once it is over
	stderr      bytes.Buffer
}

// segment is a cable between machines.
type segment struct {
	port   int    // of the multicast group that QEMU sends frames to
	prefix string // the machine's address on it
}

func (m *Machine) console() string { return filepath.Join(m.dir, m.Name+".console") }

// command is QEMU's, with a kernel that is started by PVH. The parameters
// spare an emulated kernel what it would do for real processors and clocks.
func (m *Machine) command(ctx context.Context, h *netlab.Host, parameters string, args ...string) *netlab.Cmd {
	all := append(m.accelerator.args(), "-machine", "pc", "-nodefaults", "-no-user-config", "-display", "none",
		"-m", fmt.Sprint(m.memory), "-smp", "1", "-serial", "file:"+m.console(), "-kernel", m.image.Kernel, "-initrd", m.image.Initrd,
		"-append", "console=ttyS0 quiet loglevel=3 panic=-1 net.ifnames=0 mitigations=off nokaslr tsc=reliable no_timer_check "+parameters)
	c := h.Command(ctx, Program, append(all, args...)...)
	c.Stderr = &m.stderr
	c.WaitDelay = time.Second
	return c
}

// Once boots a machine that runs one program and powers off. Its arguments
// follow it, with commas between.
func (m *Machine) Once(ctx context.Context, h *netlab.Host, program string, args []string) error {
	_ = os.Remove(m.console())
	err := m.command(ctx, h, "nlb.run="+program, append([]string{"-no-reboot"}, args...)...).Run()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", Program, err, strings.TrimSpace(m.stderr.String()))
	}
	if want := "nlb-lab: " + strings.ReplaceAll(program, ",", " ") + " ended with 0"; !strings.Contains(m.output(), want) {
		return fmt.Errorf("the machine did not get to %q:\n%s", want, m.tail())
	}
	return nil
}

// start boots a machine of the laboratory. Its cables are eth1 and eth2; the
// loopback's port ssh leads to its sshd.
func (m *Machine) start(ctx context.Context, h *netlab.Host, ssh int, boot bool, cables ...segment) {
	disk := filepath.Join(m.dir, m.Name+".disk")
	demand.OK(os.WriteFile(disk, nil, 0o600))
	demand.OK(os.Truncate(disk, 4<<20))
	parameters := "nlb.name=" + m.Name
	if boot {
		parameters += " nlb.boot=1"
	}
	args := []string{
		"-drive", "if=none,id=disk,format=raw,file=" + disk, "-device", "virtio-blk-pci,drive=disk",
		"-netdev", fmt.Sprintf("user,id=user,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:%d-:22", ssh),
		"-device", "virtio-net-pci,netdev=user,romfile=,mac=" + mac(ssh, 0),
	}
	for i, c := range cables {
		id := fmt.Sprintf("cable%d", i+1)
		parameters += fmt.Sprintf(" nlb.eth%d=%s", i+1, c.prefix)
		args = append(args,
			"-netdev", fmt.Sprintf("socket,id=%s,mcast=230.0.0.1:%d,localaddr=127.0.0.1", id, c.port),
			"-device", "virtio-net-pci,romfile=,netdev="+id+",mac="+mac(ssh, i+1))
	}
	_ = os.Remove(m.console()) // of an attempt before
	c := m.command(ctx, h, parameters, args...)
	demand.OK(c.Start())
	m.over = make(chan struct{})
	go func() {
		defer close(m.over)
		m.err = c.Wait()
	}()
}

// mac is the address of a machine's nth interface; all machines differ in the
// port of their sshd.
func mac(ssh, n int) string { return fmt.Sprintf("52:54:00:%02x:%02x:%02x", ssh>>8&0xff, ssh&0xff, n) }

// await waits until the machine has said on its console that it is up.
func (m *Machine) await(ctx context.Context) string {
	for {
		for line := range strings.Lines(m.output()) {
			if up := "nlb-lab: " + m.Name + " is up"; strings.HasPrefix(line, up) {
				return strings.TrimSpace(strings.TrimPrefix(line, "nlb-lab: "))
			}
		}
		select {
		case <-m.over:
			demand.Fail("%s ended (%v): %s\n%s", m.Name, m.err, m.stderr.String(), m.tail())
		case <-ctx.Done():
			demand.Fail("%s did not get up: %w\n%s", m.Name, ctx.Err(), m.tail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (m *Machine) output() string {
	b, _ := os.ReadFile(m.console()) // not there before QEMU is
	return strings.ReplaceAll(string(b), "\r", "")
}

// tail is the end of the console, for the person who has to find out.
func (m *Machine) tail() string {
	text := m.output()
	return text[max(0, len(text)-12_000):]
}

// Installed reports whether QEMU and ssh are there.
func Installed() error {
	for _, name := range []string{Program, "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	return nil
}
