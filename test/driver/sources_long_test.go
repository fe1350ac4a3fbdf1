//go:build long

package driver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver"
)

// debian makes an image's root of Debian packages and configures them as their own scripts do.
const debian = `FROM scratch
ADD root.tar /
RUN --mount=type=bind,source=debs,target=/debs <<EOF
set -e
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
ln -sf mawk /usr/bin/awk
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
touch /var/lib/dpkg/status /var/lib/dpkg/available
dpkg --force-depends --force-confnew --install /debs/*.deb
dpkg --audit
EOF
`

// TestPackagesOfTheMachinesSources: an image of Debian's packages gets more by apt-get and by pip, from where this machine gets its own,
// and knows nothing of that afterwards.
func TestPackagesOfTheMachinesSources(t *testing.T) {
	n := newBuilderNode(t, func(c *driver.Config) {
		c.AllowHostNetwork = true
		c.Builds = machinesSources(t)
	})
	dir := debianContext(t)
	config := func(context, text string) string {
		return fmt.Sprintf("network_mode = \"host\"\nbuild {\n context = %q\n dockerfile = %q\n}", context, text)
	}
	reference := n.buildLong(t, config(dir, debian))
	text := "FROM " + reference + `
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends tree && rm -rf /var/lib/apt/lists/*
RUN pip install --break-system-packages --no-compile humanize
`
	above := n.buildLong(t, config("", text))
	const script = `tree --version; python3 -c "import humanize; print(humanize.intword(10**6))"; env; find / -xdev -newer /usr/bin/tree -type f; ls /run /etc/apt/sources.list.d`
	said := n.output(t, fmt.Sprintf("image = %q\nnetwork_mode = \"none\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", %q]", above, script), nil)
	if !strings.Contains(said, "tree v") || !strings.Contains(said, "1.0 million") || strings.Contains(said, "freshet") || strings.Contains(said, "PIP_") {
		t.Errorf("the image says %s", said)
	}
}

// buildLong builds to the end, however long that takes, and returns what the image is called.
func (n *node) buildLong(t *testing.T, config string) string {
	t.Helper()
	task := n.newTask(t, false, config, func(cfg *drivers.TaskConfig) { cfg.Resources = resources(4000, 1024) })
	task.start(t)
	results, err := n.Impl().WaitTask(t.Context(), task.ID)
	if err != nil {
		t.Fatal(err)
	}
	if end := <-results; end == nil || !end.Successful() {
		t.Fatalf("ended with %+v: %s", end, task.read(t, "box.stderr.0"))
	}
	return task.reference(t)
}

// debianContext is a build's context of packages.
func debianContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("../../tools/packages", strings.Fields(`apt base-files base-passwd bash bsdutils ca-certificates coreutils dash debconf
		debian-archive-keyring debianutils diffutils dpkg findutils grep gzip hostname init-system-helpers libc-bin login mawk mount ncurses-base
		ncurses-bin passwd perl-base sed sysvinit-utils tar tzdata util-linux python3 python3-pip python3-venv`)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	const lay = `set -e
mkdir -p "$1/tree/usr/bin" "$1/tree/usr/sbin" "$1/tree/usr/lib" "$1/tree/usr/lib64"
for dir in bin sbin lib lib64; do ln -s usr/$dir "$1/tree/$dir"; done
for deb in "$0"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "$1/tree" --keep-directory-symlink -xf -; done
tar -C "$1/tree" --numeric-owner -cf "$1/root.tar" .
rm -r "$1/tree"
cp -r "$0" "$1/debs"`
	if out, err := exec.Command("/bin/sh", "-c", lay, strings.TrimSpace(string(out)), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// machinesSources are this machine's own settings for apt-get and pip.
func machinesSources(t *testing.T) driver.BuildsConfig {
	t.Helper()
	const authorities = "/run/freshet/ca.crt"
	env := make(map[string]string)
	config := driver.BuildsConfig{Env: []map[string]string{env}}
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/apt/apt.conf.d/99*", "/etc/pip.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			config.Files = append(config.Files, driver.BuildFile{Source: file, Target: file})
		}
	}
	for _, setting := range os.Environ() {
		name, value, _ := strings.Cut(setting, "=")
		switch upper := strings.ToUpper(name); {
		case upper == "SSL_CERT_FILE" || upper == "PIP_CERT" || upper == "REQUESTS_CA_BUNDLE" || upper == "CURL_CA_BUNDLE":
			if env[name] == "" && len(env["SSL_CERT_FILE"])+len(env["PIP_CERT"]) == 0 {
				config.Files = append(config.Files, driver.BuildFile{Source: value, Target: authorities})
			}
			env[name] = authorities
		case strings.HasPrefix(upper, "PIP_") && upper != "PIP_FIND_LINKS", strings.HasSuffix(upper, "_PROXY"):
			env[name] = value
		}
	}
	return config
}
