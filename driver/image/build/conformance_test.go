package build_test

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/image/build"
)

// conform is a Dockerfile and what its image must be, or what must be said of it.
type conform struct {
	name       string
	dockerfile string
	context    []string
	args       map[string]string
	target     string
	want       []string
	refused    string
}

// TestDockerfiles holds the builder to Docker's reference (docs.docker.com/reference/dockerfile).
func TestDockerfiles(t *testing.T) {
	n := newNode(t)
	for _, group := range [][]conform{stageCases(), copyCases(), ignoreCases(), variableCases(), runCases(), configCases(), errorCases()} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) { c.test(t, n) })
		}
	}
}

func (c conform) test(t *testing.T, n *node) {
	dir := writeContext(t, c.context)
	b, err := n.build(t, c.dockerfile, func(req *build.Request) {
		req.Context, req.Target = dir, c.target
		for name, value := range c.args {
			req.Args[name] = value
		}
	})
	if c.refused != "" {
		if err == nil || !strings.Contains(err.Error(), c.refused) {
			t.Errorf("the error is %v, want one with %q", err, c.refused)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range c.want {
		check(t, b, want)
	}
	if t.Failed() {
		t.Logf("the steps printed: %s", b.output())
	}
}

func stageCases() []conform {
	return []conform{
		{name: "base alone", dockerfile: "FROM $BASE", want: []string{"data/one=1", "ENV FROM_BASE=yes", `CMD ["/bin/sh"]`}},
		{name: "scratch", dockerfile: "FROM scratch\nCOPY a /", context: []string{"a=1"}, want: []string{"/[a]", "a=1"}},
		{name: "stage by name", dockerfile: "FROM $BASE AS one\nRUN echo x >/made\nFROM scratch\nCOPY --from=one /made /", want: []string{"/[made]", "made=x\n"}},
		{name: "stage by number", dockerfile: "FROM $BASE\nRUN echo x >/made\nFROM scratch\nCOPY --from=0 /made /", want: []string{"made=x\n"}},
		{name: "stage names ignore case", dockerfile: "FROM $BASE AS One\nRUN echo x >/made\nFROM scratch\nCOPY --from=oNE /made /", want: []string{"made=x\n"}},
		{name: "stage from stage", dockerfile: "FROM $BASE AS one\nENV A=1\nWORKDIR /w\nUSER worker\nFROM one\nRUN true", want: []string{"ENV A=1", "WORKDIR /w", "USER worker", "w/"}},
		{name: "target", dockerfile: "FROM scratch AS one\nCOPY a /\nFROM scratch AS two\nCOPY b /", context: []string{"a=1", "b=2"}, target: "one", want: []string{"/[a]"}},
		{name: "target by number", dockerfile: "FROM scratch\nCOPY a /\nFROM scratch\nCOPY b /", context: []string{"a=1", "b=2"}, target: "0", want: []string{"/[a]"}},
		{name: "stages that are not needed are not built", dockerfile: "FROM $BASE AS bad\nRUN false\nFROM scratch\nCOPY a /", context: []string{"a=1"}, want: []string{"a=1"}},
		{name: "copy from an image", dockerfile: "ARG BASE\nFROM $BASE AS base\nFROM scratch\nCOPY --from=base /data/one /x", want: []string{"x=1", "x@1000:50", "x:0640"}},
		{name: "the later stage of a name", dockerfile: "FROM scratch AS a\nCOPY one /f\nFROM scratch AS b\nCOPY two /f\nFROM scratch\nCOPY --from=a /f /a\nCOPY --from=b /f /b", context: []string{"one=1", "two=2"}, want: []string{"a=1", "b=2"}},
		{name: "several levels", dockerfile: "FROM $BASE AS a\nRUN echo 1 >/f\nFROM a AS b\nRUN echo 2 >>/f\nFROM b\nRUN echo 3 >>/f", want: []string{"f=1\n2\n3\n"}},
		{name: "platform of the node", dockerfile: "FROM --platform=$TARGETPLATFORM $BASE\nARG TARGETOS\nENV OS=$TARGETOS", want: []string{"ENV OS=linux"}},
	}
}

func copyCases() []conform {
	return []conform{
		{name: "file to a name", dockerfile: "FROM scratch\nCOPY a /b", context: []string{"a=1"}, want: []string{"b=1", "b@0:0"}},
		{name: "file to a directory that is made", dockerfile: "FROM scratch\nCOPY a /d/e/", context: []string{"a=1"}, want: []string{"d/e/a=1", "d:0755", "d/e:0755"}},
		{name: "file into a directory that is there", dockerfile: "FROM $BASE\nCOPY a /data", context: []string{"a=1"}, want: []string{"data/a=1", "data/one=1"}},
		{name: "file through a link to a directory", dockerfile: "FROM $BASE\nCOPY a /link/", context: []string{"a=1"}, want: []string{"link->/data", "data/a=1"}},
		{name: "file deep through a link", dockerfile: "FROM $BASE\nCOPY a /link/deep/three", context: []string{"a=1"}, want: []string{"data/deep/three=1", "data/deep/two=2"}},
		{name: "file over a file", dockerfile: "FROM $BASE\nCOPY a /data/one", context: []string{"a=new"}, want: []string{"data/one=new", "data/one@0:0", "data/one:0644"}},
		{name: "what a directory holds", dockerfile: "FROM scratch\nCOPY d /x", context: []string{"d/a=1", "d/e/b=2"}, want: []string{"x[a e]", "x/a=1", "x/e/b=2"}},
		{name: "directory merges", dockerfile: "FROM $BASE\nCOPY d /data/", context: []string{"d/a=1", "d/deep/b=2"}, want: []string{"data[a deep one]", "data/deep[b two]"}},
		{name: "whole context", dockerfile: "FROM scratch\nCOPY . /", context: []string{"a=1", "d/b=2"}, want: []string{"/[a d]", "d/b=2"}},
		{name: "several files", dockerfile: "FROM scratch\nCOPY a b /d/", context: []string{"a=1", "b=2"}, want: []string{"d[a b]"}},
		{name: "several files, some of them directories", dockerfile: "FROM scratch\nCOPY a d /x/", context: []string{"a=1", "d/b=2"}, want: []string{"x[a b]"}},
		{name: "in the JSON form", dockerfile: "FROM scratch\nCOPY [\"a b\", \"c d\", \"/x y/\"]", context: []string{"a b=1", "c d=2"}, want: []string{"x y[a b c d]"}},
		{name: "a star", dockerfile: "FROM scratch\nCOPY *.go /x/", context: []string{"a.go=1", "b.go=2", "c.txt=3", "d/e.go=4"}, want: []string{"x[a.go b.go]"}},
		{name: "a star within", dockerfile: "FROM scratch\nCOPY d*/x.? /o/", context: []string{"d1/x.a=1", "d2/x.b=2", "e/x.c=3", "d1/x.dd=4"}, want: []string{"o[x.a x.b]"}},
		{name: "a class", dockerfile: "FROM scratch\nCOPY f[12] /o/", context: []string{"f1=1", "f2=2", "f3=3"}, want: []string{"o[f1 f2]"}},
		{name: "one match of a pattern to a name", dockerfile: "FROM scratch\nCOPY a* /x", context: []string{"abc=1"}, want: []string{"x=1"}},
		{name: "a pattern that matches a directory", dockerfile: "FROM scratch\nCOPY d* /x", context: []string{"dir/a=1"}, want: []string{"x[a]"}},
		{name: "modes are kept", dockerfile: "FROM scratch\nCOPY a b /", context: []string{"a:0755=1", "b:0600=2"}, want: []string{"a:0755", "b:0600"}},
		{name: "set-user-ID is kept", dockerfile: "FROM scratch\nCOPY a /", context: []string{"a:4755=1"}, want: []string{"a:4755"}},
		{name: "links in a directory stay links", dockerfile: "FROM scratch\nCOPY d /x", context: []string{"d/a=1", "d/l->a", "d/broken->nowhere"}, want: []string{"x/l->a", "x/broken->nowhere"}},
		{name: "a link that is named is followed", dockerfile: "FROM scratch\nCOPY l /x", context: []string{"a=1", "l->a"}, want: []string{"x=1"}},
		{name: "a link to a directory is followed", dockerfile: "FROM scratch\nCOPY l /x/", context: []string{"d/a=1", "l->d"}, want: []string{"x[a]"}},
		{name: "links cannot leave the context", dockerfile: "FROM scratch\nCOPY l /x", context: []string{"etc/passwd=mine", "l->/etc/passwd"}, want: []string{"x=mine"}},
		{name: "chown by number", dockerfile: "FROM scratch\nCOPY --chown=7 a /n/", context: []string{"a=1"}, want: []string{"n/a@7:7", "n@7:7"}},
		{name: "chown by numbers", dockerfile: "FROM scratch\nCOPY --chown=7:8 a /", context: []string{"a=1"}, want: []string{"a@7:8"}},
		{name: "chown by name", dockerfile: "FROM $BASE\nCOPY --chown=worker a /", context: []string{"a=1"}, want: []string{"a@1000:1001"}},
		{name: "chown by names", dockerfile: "FROM $BASE\nCOPY --chown=worker:staff a /", context: []string{"a=1"}, want: []string{"a@1000:50"}},
		{name: "chmod", dockerfile: "FROM scratch\nCOPY --chmod=751 a d /x/", context: []string{"a=1", "d/b=2"}, want: []string{"x/a:0751", "x/b:0751"}},
		{name: "exclude", dockerfile: "# syntax=docker/dockerfile:1-labs\nFROM scratch\nCOPY --exclude=*.md d /x/", context: []string{"d/a=1", "d/b.md=2"}, want: []string{"x[a]"}},
		{name: "relative to the working directory", dockerfile: "FROM scratch\nWORKDIR /w\nCOPY a b\nCOPY a ./", context: []string{"a=1"}, want: []string{"w[a b]"}},
		{name: "a dot means the working directory", dockerfile: "FROM scratch\nWORKDIR /w\nCOPY a .", context: []string{"a=1"}, want: []string{"w/a=1"}},
		{name: "empty directories", dockerfile: "FROM scratch\nCOPY d /x", context: []string{"d/e/"}, want: []string{"x/e/"}},
		{name: "heredoc", dockerfile: "FROM scratch\nCOPY <<EOF /f\nhello\nEOF", want: []string{"f=hello\n"}},
		{name: "heredoc with variables", dockerfile: "FROM scratch\nENV N=you\nCOPY <<EOF /f\nhello $N\nEOF", want: []string{"f=hello you\n"}},
		{name: "heredoc that is quoted", dockerfile: "FROM scratch\nENV N=you\nCOPY <<'EOF' /f\nhello $N\nEOF", want: []string{"f=hello $N\n"}},
		{name: "heredocs", dockerfile: "FROM scratch\nCOPY <<one <<two /d/\n1\none\n2\ntwo", want: []string{"d/one=1\n", "d/two=2\n"}},
		{name: "heredoc without indent", dockerfile: "FROM scratch\nCOPY <<-EOF /f\n\t\thello\n\tEOF", want: []string{"f=hello\n"}},
		{name: "add is copy for a file", dockerfile: "FROM scratch\nADD a /b", context: []string{"a=1"}, want: []string{"b=1"}},
		{name: "link option", dockerfile: "FROM $BASE\nCOPY --link a /data/", context: []string{"a=1"}, want: []string{"data/a=1", "data/one=1"}},
	}
}

func ignoreCases() []conform {
	return []conform{
		{name: "ignored by name", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=b", "a=1", "b=2"}, want: []string{"/[.dockerignore a]"}},
		{name: "ignored by pattern", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=*.md\n.dockerignore", "a=1", "b.md=2", "d/c.md=3"}, want: []string{"/[a d]", "d/c.md=3"}},
		{name: "ignored anywhere", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=**/*.md\n.dockerignore", "a=1", "b.md=2", "d/c.md=3", "d/d=4"}, want: []string{"/[a d]", "d[d]"}},
		{name: "ignored but for one", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=*\n!a", "a=1", "b=2"}, want: []string{"/[a]"}},
		{name: "ignored directory but for a file", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=*\n!d/keep", "a=1", "d/keep=2", "d/drop=3"}, want: []string{"/[d]", "d[keep]"}},
		{name: "ignored directory", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=d\n.dockerignore", "a=1", "d/b=2"}, want: []string{"/[a]"}},
		{name: "comments in the ignore file", dockerfile: "FROM scratch\nCOPY . /", context: []string{".dockerignore=# b\n\n.dockerignore", "a=1", "b=2"}, want: []string{"/[a b]"}},
		{name: "what is ignored cannot be named", dockerfile: "FROM scratch\nCOPY b /", context: []string{".dockerignore=b", "b=2"}, refused: "Dockerfile:3: \"b\" is in the build's context, and .dockerignore leaves it out"},
	}
}

func variableCases() []conform {
	return []conform{
		{name: "ENV", dockerfile: "FROM scratch\nENV A=1 B=\"two words\" C=three\\ words\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV A=1", "ENV B=two words", "ENV C=three words"}},
		{name: "ENV in its old form", dockerfile: "FROM scratch\nENV A some words\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV A=some words"}},
		{name: "ENV sees what was before it", dockerfile: "FROM scratch\nENV A=hello\nENV A=bye B=$A\nENV C=$A\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV A=bye", "ENV B=hello", "ENV C=bye"}},
		{name: "default values", dockerfile: "FROM scratch\nENV S=set\nENV A=${X:-none} B=${S:+yes} C=${S:-none} D=${X:+yes}\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV A=none", "ENV B=yes", "ENV C=set", "ENV D="}},
		{name: "prefixes and suffixes", dockerfile: "FROM scratch\nENV F=foo.tar.gz\nENV A=${F%.*} B=${F%%.*} C=${F#*.} D=${F##*.} E=${F/tar/zip}\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV A=foo.tar", "ENV B=foo", "ENV C=tar.gz", "ENV D=gz", "ENV E=foo.zip.gz"}},
		{name: "escaped", dockerfile: "FROM scratch\nENV A=1\nENV B=\\$A C='$A'\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV B=$A", "ENV C=$A"}},
		{name: "another escape", dockerfile: "FROM scratch\nENV A=a`\n  B=b\nCOPY a /", context: []string{"a=1"}, refused: "Dockerfile:"},
		{name: "ARG", dockerfile: "FROM scratch\nARG A=1\nENV B=$A\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV B=1"}},
		{name: "ARG that is given", dockerfile: "FROM scratch\nARG A=1\nENV B=$A\nCOPY a /", context: []string{"a=1"}, args: map[string]string{"A": "2"}, want: []string{"ENV B=2"}},
		{name: "ARG before FROM is not in the stage", dockerfile: "ARG A=1\nFROM scratch\nENV B=x$A\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV B=x"}},
		{name: "ARG before FROM, taken into the stage", dockerfile: "ARG A=1\nFROM scratch\nARG A\nENV B=x$A\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV B=x1"}},
		{name: "ARG ends with its stage", dockerfile: "FROM scratch AS one\nARG A=1\nCOPY a /\nFROM scratch\nENV B=x$A\nCOPY a /", context: []string{"a=1"}, want: []string{"ENV B=x"}},
		{name: "ARG goes on in a stage from that one", dockerfile: "FROM scratch AS one\nARG A=1\nCOPY a /\nFROM one\nENV B=x$A", context: []string{"a=1"}, want: []string{"ENV B=x1"}},
		{name: "ENV wins over ARG", dockerfile: "FROM scratch\nENV A=env\nARG A=arg\nENV B=$A\nCOPY a /", context: []string{"a=1"}, args: map[string]string{"A": "given"}, want: []string{"ENV B=env"}},
		{name: "ARG in FROM", dockerfile: "ARG WHAT=scratch\nFROM $WHAT\nCOPY a /", context: []string{"a=1"}, want: []string{"a=1"}},
		{name: "ARG in a path", dockerfile: "FROM scratch\nARG D=d\nCOPY $D/a /$D/", context: []string{"d/a=1"}, want: []string{"d/a=1"}},
		{name: "ARG in a command", dockerfile: "FROM $BASE\nARG WHO=me\nRUN echo $WHO >/f", args: map[string]string{"WHO": "you"}, want: []string{"f=you\n"}},
		{name: "ARG is not in the image", dockerfile: "FROM $BASE\nARG WHO=me\nRUN true", want: []string{"ENV PATH=/bin"}},
		{name: "WORKDIR with a variable", dockerfile: "FROM scratch\nENV D=/a\nWORKDIR $D/b\nCOPY a .", context: []string{"a=1"}, want: []string{"WORKDIR /a/b", "a/b/a=1"}},
		{name: "WORKDIR relative", dockerfile: "FROM scratch\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c\nCOPY a .", context: []string{"a=1"}, want: []string{"WORKDIR /a/c", "a[b c]"}},
	}
}

func runCases() []conform {
	return []conform{
		{name: "shell form", dockerfile: "FROM $BASE\nRUN echo $((1+1)) >/f && echo b >>/f", want: []string{"f=2\nb\n"}},
		{name: "exec form", dockerfile: "FROM $BASE\nRUN [\"/bin/touch\", \"/a b\"]", want: []string{"a b="}},
		{name: "exec form looks in PATH", dockerfile: "FROM $BASE\nRUN [\"touch\", \"/f\"]", want: []string{"f="}},
		{name: "lines that go on", dockerfile: "FROM $BASE\nRUN echo a \\\n  # a comment\n  b >/f", want: []string{"f=a b\n"}},
		{name: "shell", dockerfile: "FROM $BASE\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo 1 >/f; true; echo 2 >>/f", want: []string{"f=1\n2\n", `SHELL ["/bin/sh","-ec"]`}},
		{name: "heredoc script", dockerfile: "FROM $BASE\nRUN <<EOF\necho 1 >/f\necho 2 >>/f\nEOF", want: []string{"f=1\n2\n"}},
		{name: "heredoc with an interpreter", dockerfile: "FROM $BASE\nRUN <<EOF\n#!/bin/awk -f\nBEGIN { print \"from awk\" > \"/f\" }\nEOF", want: []string{"f=from awk\n"}},
		{name: "heredoc into a file", dockerfile: "FROM $BASE\nRUN cat <<EOF >/f\nhello\nEOF", want: []string{"f=hello\n"}},
		{name: "user", dockerfile: "FROM $BASE\nUSER worker\nRUN id -u >/tmp/f", want: []string{"tmp/f=1000\n", "tmp/f@1000:1001"}},
		{name: "user with a group", dockerfile: "FROM $BASE\nUSER 5:50\nRUN id -u >/tmp/f; id -g >>/tmp/f", want: []string{"tmp/f=5\n50\n"}},
		{name: "working directory", dockerfile: "FROM $BASE\nWORKDIR /w\nRUN pwd >f", want: []string{"w/f=/w\n"}},
		{name: "environment", dockerfile: "FROM $BASE\nENV A=1\nRUN echo $A$FROM_BASE >/f", want: []string{"f=1yes\n"}},
		{name: "owners and modes", dockerfile: "FROM $BASE\nRUN touch /f && chown 7:8 /f && chmod 4710 /f", want: []string{"f@7:8", "f:4710"}},
		{name: "links", dockerfile: "FROM $BASE\nRUN ln -s /data /l && touch /h && ln /h /h2", want: []string{"l->/data", "h2="}},
		{name: "a file is removed", dockerfile: "FROM $BASE\nRUN rm /data/one", want: []string{"!data/one", "data/deep/two=2"}},
		{name: "files are removed", dockerfile: "FROM $BASE\nRUN rm /data/one /data/deep/two /link", want: []string{"!data/one", "!data/deep/two", "!link", "data[deep]"}},
		{name: "files are replaced", dockerfile: "FROM $BASE\nRUN cd /data; echo new >a.tmp; mv a.tmp one; echo 1 >b.tmp; mv b.tmp new; rm deep/two", want: []string{"data/one=new\n", "data/new=1\n", "!data/a.tmp", "!data/b.tmp", "!data/deep/two", "data[deep new one]"}},
		{name: "a directory is removed", dockerfile: "FROM $BASE\nRUN rm -r /data", want: []string{"!data"}},
		{name: "a directory is made anew", dockerfile: "FROM $BASE\nRUN rm -r /data && mkdir /data && touch /data/new", want: []string{"data[new]"}},
		{name: "a file becomes a directory", dockerfile: "FROM $BASE\nRUN rm /data/one && mkdir /data/one && touch /data/one/in", want: []string{"data/one[in]"}},
		{name: "a directory becomes a file", dockerfile: "FROM $BASE\nRUN rm -r /data/deep && echo x >/data/deep", want: []string{"data/deep=x\n"}},
		{name: "a rename", dockerfile: "FROM $BASE\nRUN mv /data/deep /data/low", want: []string{"data[low one]", "data/low/two=2"}},
		{name: "what is removed can be copied again", dockerfile: "FROM $BASE\nRUN rm -r /data\nCOPY a /data/one", context: []string{"a=new"}, want: []string{"data[one]", "data/one=new"}},
		{name: "the mode of what is above stays", dockerfile: "FROM $BASE\nRUN touch /tmp/f\nCOPY a /tmp/", context: []string{"a=1"}, want: []string{"tmp:1777", "tmp[a f]"}},
		{name: "nothing of the sandbox stays", dockerfile: "FROM $BASE\nRUN true", want: []string{"!.freshet", "!proc", "!sys", "!dev"}},
		{name: "tmpfs", dockerfile: "FROM $BASE\nRUN --mount=type=tmpfs,target=/t echo x >/t/f", want: []string{"!t/f"}},
		{name: "bind", dockerfile: "FROM $BASE\nRUN --mount=type=bind,source=d,target=/d cp /d/a /f", context: []string{"d/a=1"}, want: []string{"f=1", "!d/a"}},
		{name: "bind from a stage", dockerfile: "FROM scratch AS one\nCOPY a /x/\nFROM $BASE\nRUN --mount=from=one,source=/x,target=/d cp /d/a /f", context: []string{"a=1"}, want: []string{"f=1"}},
		{name: "bind leaves out what is ignored", dockerfile: "FROM $BASE\nRUN --mount=target=/c ls /c >/f", context: []string{".dockerignore=b\n.dockerignore", "a=1", "b=2"}, want: []string{"f=a\n"}},
		{name: "cache is shared by steps", dockerfile: "FROM $BASE\nRUN --mount=type=cache,target=/c echo x >/c/f\nRUN --mount=type=cache,target=/c cp /c/f /f", want: []string{"f=x\n", "!c/f"}},
		{name: "no network", dockerfile: "FROM $BASE\nRUN --network=none true", want: []string{"data/one=1"}},
	}
}

func configCases() []conform {
	return []conform{
		{name: "CMD", dockerfile: "FROM $BASE\nCMD [\"a\", \"b\"]", want: []string{`CMD ["a","b"]`}},
		{name: "CMD in the shell form", dockerfile: "FROM $BASE\nCMD a b", want: []string{`CMD ["/bin/sh","-c","a b"]`}},
		{name: "ENTRYPOINT drops the base's CMD", dockerfile: "FROM $BASE\nENTRYPOINT [\"e\"]", want: []string{`ENTRYPOINT ["e"]`, `CMD null`}},
		{name: "ENTRYPOINT keeps a CMD of the stage", dockerfile: "FROM $BASE\nCMD [\"c\"]\nENTRYPOINT [\"e\"]", want: []string{`ENTRYPOINT ["e"]`, `CMD ["c"]`}},
		{name: "the last CMD", dockerfile: "FROM $BASE\nCMD a\nCMD [\"b\"]", want: []string{`CMD ["b"]`}},
		{name: "EXPOSE", dockerfile: "FROM $BASE\nEXPOSE 80 53/udp 7000-7001", want: []string{"EXPOSE 80/tcp", "EXPOSE 53/udp", "EXPOSE 7000/tcp", "EXPOSE 7001/tcp"}},
		{name: "VOLUME", dockerfile: "FROM $BASE\nVOLUME /a /b", want: []string{"VOLUME /a", "VOLUME /b"}},
		{name: "STOPSIGNAL", dockerfile: "FROM $BASE\nSTOPSIGNAL SIGQUIT", want: []string{"STOPSIGNAL SIGQUIT"}},
		{name: "LABEL", dockerfile: "FROM $BASE\nLABEL a=1 b=\"two words\"", want: []string{"LABEL a=1", "LABEL b=two words"}},
		{name: "MAINTAINER", dockerfile: "FROM $BASE\nMAINTAINER somebody", want: []string{"LABEL maintainer=somebody"}},
		{name: "HEALTHCHECK is read", dockerfile: "FROM $BASE\nHEALTHCHECK NONE", want: []string{`CMD ["/bin/sh"]`}},
		{name: "USER is kept", dockerfile: "FROM $BASE\nUSER worker:staff", want: []string{"USER worker:staff"}},
	}
}

func errorCases() []conform {
	return []conform{
		{name: "nothing", dockerfile: "", refused: "Dockerfile:"},
		{name: "unknown instruction", dockerfile: "FROM scratch\nCOPPY a /", refused: "Dockerfile:3: unknown instruction: COPPY"},
		{name: "no FROM", dockerfile: "RUN true", refused: "Dockerfile:2:"},
		{name: "missing source", dockerfile: "FROM scratch\nCOPY nothing /", refused: "Dockerfile:3: \"nothing\" is not in the build's context"},
		{name: "pattern without match", dockerfile: "FROM scratch\nCOPY *.x /", refused: "Dockerfile:3: \"*.x\" is not in the build's context"},
		{name: "several files to a name", dockerfile: "FROM scratch\nCOPY a b /x", context: []string{"a=1", "b=2"}, refused: "Dockerfile:3:"},
		{name: "failing command", dockerfile: "FROM $BASE\nRUN echo why; exit 3", refused: "Dockerfile:3: the command exited with code 3; it printed at last:\nwhy"},
		{name: "missing program", dockerfile: "FROM $BASE\nRUN [\"nothing\"]", refused: "Dockerfile:3: the command exited with code 127"},
		{name: "missing shell", dockerfile: "FROM scratch\nCOPY a /\nRUN true", context: []string{"a=1"}, refused: "Dockerfile:4: the command exited with code 127"},
		{name: "unknown user", dockerfile: "FROM $BASE\nUSER nobody-here\nRUN true", refused: "Dockerfile:4:"},
		{name: "unknown owner", dockerfile: "FROM $BASE\nCOPY --chown=nobody-here a /", context: []string{"a=1"}, refused: "Dockerfile:3: --chown=nobody-here: the image has no user \"nobody-here\""},
		{name: "bad mode", dockerfile: "FROM scratch\nCOPY --chmod=9 a /", context: []string{"a=1"}, refused: "Dockerfile:3: --chmod=9: use an octal number"},
		{name: "file over a directory", dockerfile: "FROM $BASE\nCOPY d /", context: []string{"d/data=1"}, refused: "Dockerfile:3: /data is a directory, which a file cannot replace"},
		{name: "directory over a file", dockerfile: "FROM $BASE\nCOPY d /data/", context: []string{"d/one/x=1"}, refused: "Dockerfile:3: /data/one is no directory"},
		{name: "unknown target", dockerfile: "FROM scratch AS one\nCOPY a /", target: "two", refused: `target: "two": there is no such stage; there are one`},
		{name: "FROM without a value", dockerfile: "ARG WHAT\nFROM $WHAT", refused: "Dockerfile:3: FROM $WHAT names no image"},
		{name: "another platform", dockerfile: "FROM --platform=linux/s390x scratch", refused: "Dockerfile:2: the platform \"linux/s390x\" is not the node's"},
		{name: "ONBUILD", dockerfile: "FROM $BASE\nONBUILD RUN true", refused: "Dockerfile:3: ONBUILD is not offered"},
		{name: "a secret that is not there", dockerfile: "FROM $BASE\nRUN --mount=type=secret,id=s,required=true true", refused: `Dockerfile:3: the secret "s" is needed and was not given`},
		{name: "ADD from an address where none is fetched", dockerfile: "FROM $BASE\nADD https://example.test/f /", refused: "Dockerfile:3: https://example.test/f: this node fetches nothing for ADD"},
	}
}
