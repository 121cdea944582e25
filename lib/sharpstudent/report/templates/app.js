// The page works without this script; it adds the camera, the check of a file's size before it is sent, and a note
// while a file is judged.
"use strict";
const form = document.querySelector("form");
const file = document.getElementById("file");
const note = document.getElementById("status");
const camera = document.getElementById("camera");

form.addEventListener("submit", (event) => {
  const most = Number(form.dataset.mostMegabytes);
  const isExample = event.submitter && event.submitter.name === "example";
  if (!isExample && file.files.length === 0) {
    event.preventDefault();
    note.textContent = "Choose a file first.";
    file.focus();
  } else if (!isExample && file.files[0].size > most * 1e6) {
    event.preventDefault();
    note.textContent = `The file is larger than ${most} MB.`;
    file.focus();
  } else {
    note.textContent = "Judging; a video may take a minute.";
  }
});

if (location.hash === "#answer") {
  const answer = document.getElementById("answer");
  if (answer) answer.focus();
}

if (camera && navigator.mediaDevices && navigator.mediaDevices.getUserMedia) {
  const live = document.getElementById("live");
  const view = document.getElementById("view");
  let stream = null;
  const stop = () => {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
    live.hidden = true;
  };
  camera.hidden = false;
  camera.addEventListener("click", async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (error) {
      note.textContent = `The camera cannot be used: ${error.message}.`;
      return;
    }
    view.srcObject = stream;
    live.hidden = false;
    await view.play();
    document.getElementById("shoot").focus();
  });
  document.getElementById("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob((picture) => {
      const list = new DataTransfer();
      list.items.add(new File([picture], "camera.png", { type: "image/png" }));
      file.files = list.files;
      stop();
      form.requestSubmit();
    }, "image/png");
  });
}
