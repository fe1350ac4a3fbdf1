# Python on the packages of a minimal Debian, found where the images of Python have it.
FROM scratch AS made
ARG PYTHON
ADD root.tar /
ENV DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN --mount=type=bind,source=debs,target=/debs <<EOF
set -e
ln -sf mawk /usr/bin/awk
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
touch /var/lib/dpkg/status /var/lib/dpkg/available
mkdir -p /etc/dpkg/dpkg.cfg.d
printf 'path-exclude=/usr/share/%s/*\n' doc man locale info groff linda lintian >/etc/dpkg/dpkg.cfg.d/docker
printf 'path-include=/usr/share/doc/*/copyright\n' >>/etc/dpkg/dpkg.cfg.d/docker
dpkg --force-depends --force-confnew --install /debs/*.deb
dpkg --audit
find /usr/share/doc -depth -type f ! -name copyright -delete
# pip installs into this Python, as it does in the original.
rm /usr/lib/python3*/EXTERNALLY-MANAGED
for name in python3 python$PYTHON pip3; do ln -s /usr/bin/$name /usr/local/bin/$name; done
ln -s python3 /usr/local/bin/python
ln -s pip3 /usr/local/bin/pip
ln -s dist-packages /usr/local/lib/python$PYTHON/site-packages
rm -rf /usr/share/man /usr/share/locale /usr/share/info /var/cache/apt/archives/*.deb /var/log/dpkg.log /tmp/*
EOF
FROM scratch
ARG PYTHON
COPY --from=made / /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHON_VERSION=$PYTHON
CMD ["python3"]
